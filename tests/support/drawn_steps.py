"""What a state machine of the verbs draws: intents, what it picks, and what becomes of attempts to deliver."""

from hypothesis import strategies as st

from shared.delivery_lifecycle import DeliveryStatus
from shared.webhooks.attempts import Delivered, Exhausted, Gone, TryAgain
from tests.support.harness import APPROVED_AMOUNT, DECLINED_AMOUNT

# What may become of an attempt to deliver, and where that leaves the delivery for how long.
ATTEMPTS = {
    Delivered(): (DeliveryStatus.DELIVERED, None),
    TryAgain(3): (DeliveryStatus.PENDING, 3),
    TryAgain(120): (DeliveryStatus.PENDING, 120),
    Exhausted(): (DeliveryStatus.EXHAUSTED, None),
    Gone(): (DeliveryStatus.EXHAUSTED, None),
}

# Each modulo the number of what there is.
picks = st.lists(st.integers(0, 99), min_size=1, max_size=4)
pick = st.integers(0, 99)
amounts = st.sampled_from([APPROVED_AMOUNT, DECLINED_AMOUNT])
intents = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from([None, "k1", "k2", "k3"]), amounts),
    min_size=1,
    max_size=3,
    unique_by=lambda drawn: drawn[1] or object(),
)
