"""The load counts requests and payments honestly, and knows what was lost or paid twice."""

from cli.load.checks import HISTORIES_MAX, choose_histories, tells_one_end
from cli.load.payment_tally import PaymentTally, settled_per_s
from cli.load.report import settled_by_second
from cli.load.request_counts import RequestCounts, Spread, spread
from shared.lifecycle import PaymentStatus
from tests.support.loads import a_history, shown


def test_requests_are_counted_by_second_and_add_up() -> None:
    counts = RequestCounts()
    for at_s in (0.1, 0.9, 1.5, 2.5):
        counts.offer(at_s)
    counts.accept(0.2, 100)
    counts.accept(1.0, 300)
    counts.refuse(1.6, "503 overloaded")
    counts.leave(2.5, "late")
    assert (counts.offered, counts.sent, counts.accepted) == (4, 3, 2)
    assert [second.offered for second in counts.seconds] == [2, 1, 1]
    assert [second.accepted for second in counts.seconds] == [1, 1, 0]
    assert (counts.whole(2.2).refused, counts.whole(9).offered) == (1, 0)
    assert counts.refused == {"503 overloaded": 1}
    assert counts.latency == Spread(p50=100, p95=300, p99=300, longest=300)
    assert counts.latency_at(1.9) == Spread(100, 100, 100, 100)


def test_a_spread_is_made_of_values_that_were_measured() -> None:
    assert spread([]) is None
    assert spread(list(range(100, 0, -1))) == Spread(p50=50, p95=95, p99=99, longest=100)


def test_the_tally_knows_what_has_not_ended() -> None:
    tally = PaymentTally("7")
    for number in range(3):
        tally.see(shown(f"7{number}", at_s=number))
    tally.see(shown("70", "COMPLETED"))
    tally.see(shown("70"))  # an older answer that comes late
    tally.see(shown("72", "FAILED", at_s=2))
    tally.see(shown("81"))  # another run's order
    assert set(tally.open) == {"p-71"}
    assert tally.oldest_open_at == 1_000_001
    assert tally.settled == 2
    assert tally.ends == {(PaymentStatus.COMPLETED, ""): 1, (PaymentStatus.FAILED, "card_declined"): 1}
    assert tally.settle_times_ms() == [2000, 2000]
    assert settled_per_s(tally.ended_at, 1_000_000, 1_000_004) == 0.25
    assert settled_by_second(tally) == [0, 0, 1, 0, 1]


def test_an_order_with_two_live_payments_was_paid_twice() -> None:
    tally = PaymentTally("7")
    tally.see(shown("70", "FAILED", payment_id="a"))
    tally.see(shown("70", "COMPLETED", payment_id="b"))
    assert tally.paid_twice == {}, "a second try after a failure is none"
    tally.see(shown("70", "COMPLETED", payment_id="c"))
    assert tally.paid_twice == {"70": {"b", "c"}}


def test_a_payment_that_ends_twice_differently_is_noticed() -> None:
    tally = PaymentTally("7")
    for status in ("COMPLETED", "COMPLETED", "FAILED"):
        tally.see(shown("70", status))
    assert tally.changed == {"p-70"}


def test_a_history_has_no_gap_and_one_end() -> None:
    whole = a_history("PENDING", "PROCESSING", "PROCESSING", "COMPLETED")
    assert tells_one_end(whole, 4)
    assert not tells_one_end(whole, 5)
    assert not tells_one_end(whole[:-1], 3), "no end"
    assert not tells_one_end([whole[0], *whole[2:]], 3), "a gap"
    assert not tells_one_end(a_history("PENDING", "PROCESSING", "COMPLETED", "COMPLETED"), 4), "two ends"
    assert not tells_one_end([whole[0], whole[1] | {"previous_status": "PROCESSING"}, *whole[2:]], 4), "a jump"


def test_the_longest_histories_are_read_and_not_too_many() -> None:
    tally = PaymentTally("7")
    for number in range(500):
        tally.see(shown(f"7{number}", "COMPLETED", sequence=9 if number == 321 else 3))
    chosen = choose_histories(tally)
    assert chosen[0] == "p-7321"
    assert len(chosen) == len(set(chosen)) <= HISTORIES_MAX
    assert choose_histories(PaymentTally("7")) == []
