"""The captures and refunds of a load: what a shop does with a payment after it was authorized or charged.

Each payment that is captured or refunded is followed by a task of its own. An answer that is lost, or says that the
service is busy, is asked for again with the same key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

from cli.load.client import API, Api, ApiAnswer, Document, NoAnswer, Unusable, is_lost
from cli.load.later_tally import LaterPayment, LaterTally
from cli.load.plan import Intent, RefundPlan
from shared.lifecycle import PaymentStatus
from shared.refund_lifecycle import RefundStatus

# Requests for captures and refunds at once. Most of them are held until the payment or the refund has ended.
AT_ONCE = 200
# Seconds for which the service may hold an answer.
WAIT_S = 5
REPEAT_AFTER_S = 0.5
# Statuses of a service that is busy or not ready: the request is repeated.
BUSY = frozenset({429, 503})
FORBIDDEN = 403


class LaterSteps:
    """Captures and refunds payments as their intents say, with the token of a service or an admin.

    `see` is called with each payment that the API shows.
    """

    def __init__(self, api: Api, token: str, tally: LaterTally, see: Callable[[Document], None]) -> None:
        self._api = api
        self._token = token
        self._tally = tally
        self._see = see
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._keys = count(1)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Let the tasks run in `group`. It ends with Unusable if the token may not capture or refund."""
        self._group = group

    def begin(self, intent: Intent, payment_id: str) -> None:
        """Begin to follow a payment that was accepted, if its intent has a capture or a refund."""
        if self._group is not None and (intent.is_captured or intent.refund is not None):
            payment = LaterPayment(payment_id)
            self._tally.payments.append(payment)
            self._tasks.append(self._group.create_task(self._follow(intent, payment)))

    async def finish(self, stalled_max_s: float) -> None:
        """Wait for all captures and refunds. Give up when none ended for `stalled_max_s` seconds."""
        left = {task for task in self._tasks if not task.done()}
        while left:
            done, left = await asyncio.wait(left, timeout=stalled_max_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                for task in left:
                    task.cancel()

    async def _follow(self, intent: Intent, payment: LaterPayment) -> None:
        await self._read(payment)
        if payment.shown["status"] == PaymentStatus.AUTHORIZED:
            await self._capture(intent, payment)
        if intent.refund is not None and payment.shown["status"] == PaymentStatus.COMPLETED:
            amounts = refund_amounts(intent.refund, payment.shown["amount_captured"])
            await asyncio.gather(*(self._refund(payment, amount) for amount in amounts))
            await self._read(payment)
        payment.is_finished = True

    async def _capture(self, intent: Intent, payment: LaterPayment) -> None:
        """Capture the payment, and wait for the end. If that fails, cancel it, so that no authorization is left."""
        amount = capture_amount(intent, payment.shown["amount_authorized"])
        answer = await self._post(f"/payments/{payment.payment_id}/capture", {"amount": amount})
        if answer.is_success:
            payment.capture = amount
        else:
            self._tally.refused[f"capture: {answer.status_and_code}"] += 1
        await self._read(payment)
        if payment.shown["status"] == PaymentStatus.AUTHORIZED:
            await self._post(f"/payments/{payment.payment_id}/cancel", None)
            await self._read(payment)

    async def _refund(self, payment: LaterPayment, amount: int) -> None:
        """Ask for a refund, and wait for its end."""
        answer = await self._post(f"/payments/{payment.payment_id}/refunds", {"amount": amount})
        if not answer.is_success:
            self._tally.refused[f"refund: {answer.status_and_code}"] += 1
            return
        payment.see_refund(answer.content)
        refund_id = answer.content["id"]
        while not payment.refunds[refund_id].status.has_ended:
            payment.see_refund(
                await self._get(f"/refunds/{refund_id}", lambda refund: RefundStatus(refund["status"]).has_ended)
            )

    async def _read(self, payment: LaterPayment) -> None:
        """Read the payment once it has ended or is AUTHORIZED."""
        path = f"/payments/{payment.payment_id}"
        payment.shown = await self._get(path, lambda shown: PaymentStatus(shown["status"]).is_settled)
        self._see(payment.shown)

    async def _get(self, path: str, is_awaited: Callable[[Document], bool]) -> Document:
        """Return the JSON object at `path` once it is the awaited one."""

        async def send() -> ApiAnswer:
            headers = {"Prefer": f"wait={WAIT_S}"}
            return await self._api.request("GET", API + path, self._token, headers=headers)

        while True:
            answer = await self._repeat(send)
            if answer.is_success and is_awaited(answer.content):
                return answer.content
            if not answer.is_success:
                raise Unusable(f"GET {API}{path} answered {answer.status_and_code}.")
            # A service that holds too many answers gives this one at once.
            await asyncio.sleep(REPEAT_AFTER_S)

    async def _post(self, path: str, content: Document | None) -> ApiAnswer:
        """Send a request with a key of its own and return its answer. Raises Unusable if the token may not."""
        headers = {"Idempotency-Key": f"load-{path}-{next(self._keys)}", "Prefer": f"wait={WAIT_S}"}

        async def send() -> ApiAnswer:
            return await self._api.request("POST", API + path, self._token, content=content, headers=headers)

        answer = await self._repeat(send)
        if answer.status == FORBIDDEN:
            raise Unusable("--captures and --refunds need a token of role service or admin.")
        return answer

    async def _repeat(self, send: Callable[[], Awaitable[ApiAnswer]]) -> ApiAnswer:
        """Send a request until its answer is not lost and the service not busy."""
        while True:
            async with self._at_once:
                try:
                    answer = await send()
                    if not is_lost(answer) and answer.status not in BUSY:
                        return answer
                except NoAnswer:
                    pass
            await asyncio.sleep(REPEAT_AFTER_S)


def capture_amount(intent: Intent, authorized: int) -> int:
    """Return what is captured: of every second intent all, of the others three quarters."""
    return authorized if intent.number % 2 else authorized * 3 // 4


def refund_amounts(refund: RefundPlan, captured: int) -> list[int]:
    """Return the amounts of the refunds that are asked for at the same time."""
    match refund:
        case RefundPlan.WHOLE:
            return [captured]
        case RefundPlan.PART:
            return [captured // 3]
        case RefundPlan.TOO_MUCH:
            # One of them is accepted, and the other one is refused.
            return [captured * 2 // 3] * 2
