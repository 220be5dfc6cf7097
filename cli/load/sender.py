"""Sending the intents of a load. Arrivals follow the clock alone: an intent that cannot be sent is not queued."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.load.client import Api, ApiAnswer, Document, NoAnswer, is_lost
from cli.load.plan import Intent, Plan
from cli.load.progress import Progress
from cli.load.targets import Target
from shared.lifecycle import CaptureMethod, MethodType

# Late arrivals that are sent before the event loop gets a turn.
YIELD_EVERY = 50
REPEAT_AFTER_S = 0.2


@dataclass(frozen=True, slots=True)
class Payer:
    """A user that pays, with its token."""

    token: str
    user_id: str
    # The id of one payment method of each type.
    methods: dict[MethodType, str]


class Sender:
    """Sends the intents of a plan, and counts the answers in `progress`.

    `on_accepted` is called with each intent that was accepted and the id of its payment.
    At most `open_max` requests are open at once; an arrival that is later than `late_max_s` seconds is not sent.
    """

    def __init__(
        self,
        plan: Plan,
        api: Api,
        progress: Progress,
        *,
        run_id: str,
        open_max: int,
        late_max_s: float,
        on_accepted: Callable[[Intent, str], None],
    ) -> None:
        self._plan = plan
        self._api = api
        self._progress = progress
        self._run_id = run_id
        self._open_max = open_max
        self._late_max_s = late_max_s
        self._on_accepted = on_accepted
        self._open = 0

    async def send_all(self, payers: Sequence[Payer], stop: asyncio.Event) -> None:
        """Send each intent when it arrives. Return when each request that was sent has been answered or given up."""
        async with asyncio.TaskGroup() as requests:
            arriving = requests.create_task(self._arrive(payers, requests))
            stopping = requests.create_task(stop.wait())
            await asyncio.wait({arriving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            arriving.cancel()
            stopping.cancel()

    async def _arrive(self, payers: Sequence[Payer], requests: asyncio.TaskGroup) -> None:
        progress, request_counts = self._progress, self._progress.request_counts
        for intent in self._plan.intents():
            wait_s = intent.at_s - progress.elapsed_s
            if wait_s > 0 or intent.number % YIELD_EVERY == 0:
                await asyncio.sleep(max(0.0, wait_s))
            request_counts.offer(intent.at_s)
            if progress.elapsed_s - intent.at_s > self._late_max_s:
                request_counts.leave(intent.at_s, f"this client was more than {self._late_max_s:g} s late")
            elif self._open >= self._open_max:
                request_counts.leave(intent.at_s, f"{self._open_max:,} requests were open")
            else:
                self._open += 1
                requests.create_task(self._send(intent, payers[intent.number % len(payers)]))
        remaining_s = self._plan.duration_s - progress.elapsed_s
        # The plan ends when its time is over, which may be later than its last arrival.
        await asyncio.sleep(max(0.0, remaining_s))

    async def _send(self, intent: Intent, payer: Payer) -> None:
        """Send one intent and count the answer."""
        progress, request_counts = self._progress, self._progress.request_counts
        # The order id is a whole number, because an order service may look it up.
        order_id = f"{self._run_id}{intent.number:06}"
        content = {
            "order_id": order_id,
            "payment_method_id": payer.methods[intent.method],
            "amount": intent.amount,
            "description": "payments load",
        }
        if intent.is_captured:
            content["capture_method"] = CaptureMethod.MANUAL.value
        try:
            answer = await self._send_with_repeat(payer.token, content, key=f"load-{order_id}")
        finally:
            self._open -= 1
        at_s = progress.elapsed_s
        if answer is None:
            request_counts.miss(at_s)
            progress.payment_tally.unanswered.add(order_id)
        elif answer.is_success and "id" in answer.content:
            # The latency counts from the arrival, so that it includes the delay of this client.
            request_counts.accept(at_s, (at_s - intent.at_s) * 1000)
            progress.payment_tally.see(answer.content)
            self._on_accepted(intent, answer.content["id"])
        else:
            request_counts.refuse(at_s, answer.status_and_code)

    async def _send_with_repeat(self, token: str, content: Document, *, key: str) -> ApiAnswer | None:
        """Send a payment, and once more with the same key if its answer is lost. Return None if both are lost."""
        for is_repeat in (False, True):
            if is_repeat:
                self._progress.request_counts.repeated += 1
                await asyncio.sleep(REPEAT_AFTER_S)
            with contextlib.suppress(NoAnswer):
                answer = await self._api.pay(token, content, key=key)
                if not is_lost(answer):
                    return answer
        return None


async def prepare(target: Target, api: Api, mix: Sequence[MethodType]) -> list[Payer]:
    """Add a payment method of each type in `mix` for each user. Return the users. Raises Unusable or NoAnswer."""

    async def add_methods(token: str) -> Payer:
        added = {method: await api.add_method(token, method) for method in mix}
        user_id = str(next(iter(added.values()))["user_id"])
        return Payer(token, user_id, {method: document["id"] for method, document in added.items()})

    return list(await asyncio.gather(*(add_methods(token) for token in target.payers)))
