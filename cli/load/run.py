"""A run of a load: sends the intents, polls the figures, waits for the ends of the payments and checks the result.

Arrivals follow the clock alone. An intent that cannot be sent when it arrives is counted as not sent; none is queued.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic, time

from cli.load.checks import judge_histories, judge_ledger, judge_payments, note_what_a_target_hides
from cli.load.client import Api, NoAnswer, Unusable
from cli.load.drain import Drain
from cli.load.follower import Follower
from cli.load.later_checks import judge_captures_and_refunds
from cli.load.later_steps import LaterSteps
from cli.load.payment_tally import PaymentTally
from cli.load.plan import Plan
from cli.load.progress import Progress, Sample
from cli.load.sender import Payer, Sender
from cli.load.targets import Target
from cli.load.webhook_sink import Received

FIGURES_INTERVAL_S = 1.0
FOLLOW_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of a run."""

    # Requests that are open at once.
    open_max: int = 1000
    # An arrival that is later than this is not sent. Late arrivals would otherwise form a queue.
    late_max_s: float = 1.0
    # Seconds after the last arrival.
    drain_max_s: float = 300
    # Seconds in which no payment ends: twice the lease of a worker that died.
    stalled_max_s: float = 60
    # Seconds after the last payment has ended.
    webhooks_max_s: float = 10


class Run:
    """One run of a plan against a target.

    `drain_workers` is called after the last arrival, before the wait for the ends of the payments. `received`
    returns for how many payments and refunds a webhook was received; it is None if the run has no receiver.
    """

    def __init__(
        self,
        plan: Plan,
        target: Target,
        api: Api,
        *,
        title: str = "",
        drain_workers: Callable[[], Awaitable[None]] | None = None,
        received: Callable[[], Received] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = bounds or Bounds()
        run_id = f"{int(time() * 1000)}"
        self.progress = Progress(plan, target, title, payment_tally=PaymentTally(run_id))
        self._plan = plan
        self._target = target
        self._api = api
        self._drain_workers = drain_workers
        self._received = received
        self._later_steps = LaterSteps(
            api, target.watcher, self.progress.later_tally, see=self.progress.payment_tally.see
        )
        self._follower = Follower(api, target.watcher, self.progress.payment_tally)
        self._sender = Sender(
            plan,
            api,
            self.progress,
            run_id=run_id,
            open_max=self._bounds.open_max,
            late_max_s=self._bounds.late_max_s,
            on_accepted=self._later_steps.begin,
        )
        self._drain = Drain(
            self.progress,
            self._follower,
            drain_max_s=self._bounds.drain_max_s,
            stalled_max_s=self._bounds.stalled_max_s,
        )

    async def go(self, payers: Sequence[Payer], stop: asyncio.Event) -> Progress:
        """Run the load and return its progress. `stop` ends the arrivals early.

        Raises Unusable or NoAnswer, alone or in an exception group, if the service cannot be loaded.
        """
        progress = self.progress
        await self._filter_payments(payers)
        async with asyncio.TaskGroup() as group:
            progress.began, progress.phase = monotonic(), "sending"
            self._later_steps.start(group)
            following = group.create_task(self._follow())
            side_tasks = [group.create_task(self._poll_figures()), group.create_task(self._sample())]
            await self._sender.send_all(payers, stop)
            progress.sent_for_s = min(progress.elapsed_s, self._plan.duration_s)
            progress.is_interrupted = stop.is_set()
            progress.phase = "draining"
            if self._drain_workers is not None:
                await self._drain_workers()
            # From here on, the drain reads the ends of the payments.
            following.cancel()
            give_up_reason = await self._drain.run()
            await self._later_steps.finish(self._bounds.stalled_max_s)
            progress.phase = "checking"
            await self._judge(give_up_reason)
            progress.took_s = progress.elapsed_s
            for task in side_tasks:
                task.cancel()
        progress.phase = "done"
        return progress

    async def _filter_payments(self, payers: Sequence[Payer]) -> None:
        """Read only the payments of the paying user where an admin's token would list those of all users."""
        self.progress.figures = await self._api.figures(self._target.watcher)
        if self.progress.figures is not None and not self._target.was_started_here:
            self._follower.filter_by_user(payers[0].user_id)

    async def _poll_figures(self) -> None:
        """Read the live figures once a second. An error is shown, and the next second tries again."""
        progress = self.progress
        while True:
            try:
                progress.figures = await self._api.figures(self._target.watcher)
                progress.error = ""
            except NoAnswer as error:
                progress.error = f"The live figures are missing: {error}."
            except Unusable as error:
                progress.error = str(error)
            progress.error = self._target.failure() or progress.error
            await asyncio.sleep(FIGURES_INTERVAL_S)

    async def _sample(self) -> None:
        """Add a sample to the progress once a second."""
        progress = self.progress
        while True:
            at_s = len(progress.samples) + 1
            await asyncio.sleep(max(0.0, at_s - progress.elapsed_s))
            self._count_webhooks()
            sample = Sample(
                at_s=at_s,
                second=progress.request_counts.whole(at_s),
                latency=progress.request_counts.latency_at(at_s),
                settled=progress.payment_tally.settled,
                figures=progress.figures,
                webhooks=progress.webhooks,
            )
            progress.samples.append(sample)

    async def _follow(self) -> None:
        """Read the ends of payments during the run. After an error, the next read begins at the same place."""
        while True:
            with contextlib.suppress(NoAnswer, Unusable):
                await self._follower.catch_up(self.progress.figures)
            await asyncio.sleep(FOLLOW_INTERVAL_S)

    async def _judge(self, give_up_reason: str) -> None:
        progress = self.progress
        judge_payments(progress.payment_tally, progress.verdict, give_up_reason=give_up_reason)
        judge_captures_and_refunds(progress.later_tally, progress.verdict)
        await judge_histories(self._api, self._target.watcher, progress.payment_tally, progress.verdict)
        if self._target.settings is not None:
            await judge_ledger(self._target.settings, progress.verdict)
        else:
            note_what_a_target_hides(progress.verdict)
        deadline = monotonic() + self._bounds.webhooks_max_s
        while self._count_webhooks() and monotonic() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(FIGURES_INTERVAL_S / 10)

    def _count_webhooks(self) -> bool:
        """Count the webhooks that were received, and return whether some are missing."""
        if self._received is None:
            return False
        progress, received = self.progress, self._received()
        progress.webhooks, progress.refund_webhooks = received.payments, received.refunds
        ended = progress.payment_tally.settled, progress.later_tally.refunds_ended
        return received.payments < ended[0] or received.refunds < ended[1]
