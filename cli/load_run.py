"""One load from the first arrival to the verdict: sends, watches, waits for the ends, judges.

Arrivals come by the clock alone. What cannot be sent when it arrives is counted as not sent: nothing queues here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic, time

from cli.load_book import Book
from cli.load_checks import judge_book, judge_histories, judge_ledger
from cli.load_client import Answer, Api, Document, NoAnswer, Unusable
from cli.load_follow import Follower
from cli.load_plan import Intent, Plan
from cli.load_progress import Progress, Sample
from cli.load_stage import Stage
from shared.lifecycle import MethodType

BREATHE_EVERY = 50  # arrivals between two looks at the network when they all are late
REPEAT_AFTER_S = 0.2
WATCH_EVERY_S = 1.0
FOLLOW_EVERY_S = 1.0
NEARLY_IDLE = 50  # payments that have not ended: then their ends are worth asking for
LOOK_EVERY_S = 0.5
ASK_SHARE = 10  # while the service is busy, asking takes a tenth of the time at most
LOST_ANSWERS = frozenset({500, 502, 504})  # of a proxy or a bug: nobody knows what was done


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run never goes beyond."""

    open_max: int = 1000  # requests at once
    late_max_s: float = 1.0  # an arrival that we come to later than this is not sent: it would be a queue
    drain_max_s: float = 300  # after the last arrival
    stalled_max_s: float = 60  # without one payment ending: twice what the lease of a worker that died takes
    webhooks_max_s: float = 10  # after the last payment has ended


@dataclass(frozen=True, slots=True)
class Payer:
    """Somebody who pays, and what with."""

    token: str
    user_id: str
    methods: dict[MethodType, str]


class Run:
    """One plan on one stage; `helpers` are called when the last arrival is sent, before the rest is waited for."""

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        api: Api,
        *,
        title: str = "",
        helpers: Callable[[], Awaitable[None]] | None = None,
        told: Callable[[], int] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = bounds or Bounds()
        run_id = f"{int(time() * 1000)}"
        self.progress = Progress(plan, stage, title, book=Book(run_id))
        self._run_id = run_id
        self._plan = plan
        self._stage = stage
        self._api = api
        self._helpers = helpers
        self._told = told
        self._follower = Follower(api, stage.watcher, self.progress.book)
        self._open = 0

    async def go(self, payers: Sequence[Payer], stop: asyncio.Event) -> Progress:
        """All of it; `stop` ends the arrivals early. Raises Unusable if the service cannot be loaded."""
        progress = self.progress
        await self._see_who_asks(payers)
        async with asyncio.TaskGroup() as group:
            progress.began, progress.phase = monotonic(), "sending"
            following = group.create_task(self._follow())
            aside = [group.create_task(self._watch()), group.create_task(self._sample())]
            await self._send_all(payers, stop)
            progress.sent_for_s = min(progress.elapsed_s, self._plan.duration_s)
            progress.is_interrupted = stop.is_set()
            progress.phase = "draining"
            if self._helpers is not None:
                await self._helpers()
            following.cancel()  # from here on the drain reads by itself
            open_words = await self._drain()
            progress.phase = "checking"
            await self._judge(open_words)
            progress.took_s = progress.elapsed_s
            for task in aside:
                task.cancel()
        progress.phase = "done"
        return progress

    async def _see_who_asks(self, payers: Sequence[Payer]) -> None:
        """An admin of somebody else's deployment sees the payments of all; ours are those of the one who pays."""
        self.progress.figures = await self._api.figures(self._stage.watcher)
        if self.progress.figures is not None and not self._stage.is_ours:
            self._follower.only(payers[0].user_id)

    # -- sending

    async def _send_all(self, payers: Sequence[Payer], stop: asyncio.Event) -> None:
        """Every intent when it arrives; returns when every one that was sent has its answer, or none is to come."""
        async with asyncio.TaskGroup() as requests:
            arriving = requests.create_task(self._arrive(payers, requests))
            stopping = requests.create_task(stop.wait())
            await asyncio.wait({arriving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            arriving.cancel()
            stopping.cancel()

    async def _arrive(self, payers: Sequence[Payer], requests: asyncio.TaskGroup) -> None:
        progress, tally, bounds = self.progress, self.progress.tally, self._bounds
        for intent in self._plan.intents():
            wait_s = intent.at_s - progress.elapsed_s
            if wait_s > 0 or intent.number % BREATHE_EVERY == 0:
                await asyncio.sleep(max(0.0, wait_s))
            tally.offer(intent.at_s)
            if progress.elapsed_s - intent.at_s > bounds.late_max_s:
                tally.leave(intent.at_s, f"this client was more than {bounds.late_max_s:g} s late")
            elif self._open >= bounds.open_max:
                tally.leave(intent.at_s, f"{bounds.open_max:,} requests were open")
            else:
                self._open += 1
                requests.create_task(self._send(intent, payers[intent.number % len(payers)]))
        rest_s = self._plan.duration_s - progress.elapsed_s
        await asyncio.sleep(max(0.0, rest_s))  # the plan ends when its time is over, not with its last arrival

    async def _send(self, intent: Intent, payer: Payer) -> None:
        """One intent; if its answer is lost, once more with the same key."""
        progress, tally = self.progress, self.progress.tally
        order_id = f"{self._run_id}{intent.number:06}"  # a whole number, in case an order service looks it up
        content = {
            "order_id": order_id,
            "payment_method_id": payer.methods[intent.method],
            "amount": intent.amount,
            "description": "payments load",
        }
        try:
            answer = await self._answered(payer.token, content, key=f"load-{order_id}")
        finally:
            self._open -= 1
        at_s = progress.elapsed_s
        if answer is None:
            tally.miss(at_s)
            progress.book.unanswered.add(order_id)
        elif answer.is_success and "id" in answer.content:
            tally.accept(at_s, (at_s - intent.at_s) * 1000)  # since its arrival: our own delay is not hidden
            progress.book.see(answer.content)
        else:
            tally.refuse(at_s, answer.words)

    async def _answered(self, token: str, content: Document, *, key: str) -> Answer | None:
        for is_repeat in (False, True):
            if is_repeat:
                self.progress.tally.repeated += 1
                await asyncio.sleep(REPEAT_AFTER_S)
            with contextlib.suppress(NoAnswer):
                answer = await self._api.pay(token, content, key=key)
                if not _is_lost(answer):
                    return answer
        return None

    # -- watching

    async def _watch(self) -> None:
        """Ask for the live figures once a second; what goes wrong is shown, and asked again."""
        progress = self.progress
        while True:
            try:
                progress.figures = await self._api.figures(self._stage.watcher)
                progress.trouble = ""
            except NoAnswer as error:
                progress.trouble = f"no live figures: {error}"
            except Unusable as error:
                progress.trouble = str(error)
            progress.trouble = self._stage.health() or progress.trouble
            await asyncio.sleep(WATCH_EVERY_S)

    async def _sample(self) -> None:
        """Note once a second what can be seen."""
        progress = self.progress
        while True:
            at_s = len(progress.samples) + 1
            await asyncio.sleep(max(0.0, at_s - progress.elapsed_s))
            if self._told is not None:
                progress.webhooks = self._told()
            sample = Sample(
                at_s=at_s,
                second=progress.tally.whole(at_s),
                latency=progress.tally.latency_at(at_s),
                settled=progress.book.settled,
                figures=progress.figures,
                webhooks=progress.webhooks,
            )
            progress.samples.append(sample)

    async def _follow(self) -> None:
        """Learn the ends while it runs; what cannot be read now is read later."""
        while True:
            with contextlib.suppress(NoAnswer, Unusable):
                await self._follower.catch_up(self.progress.figures)
            await asyncio.sleep(FOLLOW_EVERY_S)

    # -- the end

    async def _drain(self) -> str:
        """Wait until every payment has ended, within bounds; how long that was, in words."""
        book, began = self.progress.book, monotonic()
        fewest, moved_at, look_again_at = (len(book.open), self._unsettled), began, began
        while True:
            if not self._is_busy or monotonic() >= look_again_at:
                look_again_at = monotonic() + ASK_SHARE * await self._look()
                if not book.open and await self._has_read_all():
                    return ""
            left = (len(book.open), self._unsettled)
            if left[0] < fewest[0] or left[1] < fewest[1]:
                fewest, moved_at = (min(left[0], fewest[0]), min(left[1], fewest[1])), monotonic()
            if monotonic() - moved_at > self._bounds.stalled_max_s or self._stage.health():
                return f"nothing moved for {monotonic() - moved_at:.0f} s"
            if monotonic() - began > self._bounds.drain_max_s:
                return f"within {self._bounds.drain_max_s:g} s of the last arrival"
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> float:
        """Read what may have ended; how long that took. What cannot be read now is read the next time."""
        began = monotonic()
        with contextlib.suppress(NoAnswer, Unusable):
            await self._follower.catch_up(self.progress.figures)
            await self._follower.read_open()
        return monotonic() - began

    async def _has_read_all(self) -> bool:
        """Read the lists up to now: there may be payments whose answers were lost. True if all of them have ended."""
        try:
            await self._follower.read_all()
        except (NoAnswer, Unusable):
            return False
        return not self.progress.book.open

    @property
    def _is_busy(self) -> bool:
        return self.progress.figures is None or self._unsettled > NEARLY_IDLE

    @property
    def _unsettled(self) -> int:
        return self.progress.figures.unsettled if self.progress.figures is not None else 0

    async def _judge(self, open_words: str) -> None:
        progress = self.progress
        judge_book(progress.book, progress.verdict, open_words=open_words)
        await judge_histories(self._api, self._stage.watcher, progress.book, progress.verdict)
        if self._stage.settings is not None:
            await judge_ledger(self._stage.settings, progress.verdict)
        if self._told is not None:
            deadline = monotonic() + self._bounds.webhooks_max_s
            while self._told() < progress.book.settled and monotonic() < deadline:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(WATCH_EVERY_S / 10)
            progress.webhooks = self._told()


async def prepare(stage: Stage, api: Api, mix: Sequence[MethodType]) -> list[Payer]:
    """Give every payer a method of each kind that the mix has. Raises Unusable or NoAnswer."""

    async def equip(token: str) -> Payer:
        added = {method: await api.add_method(token, method) for method in mix}
        user_id = str(next(iter(added.values()))["user_id"])
        return Payer(token, user_id, {method: document["id"] for method, document in added.items()})

    return list(await asyncio.gather(*(equip(token) for token in stage.payers)))


def _is_lost(answer: Answer) -> bool:
    """Nobody knows whether it was done: the service says so itself, or something between it and us answered."""
    return answer.content.get("code") == "outcome_unknown" or answer.status in LOST_ANSWERS
