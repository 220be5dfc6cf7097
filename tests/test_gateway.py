"""The simulated gateway and its books, on both databases. No test waits: the gateway's sleep is passed in."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.cards import ADDRESS_SCENARIOS, CARD_SCENARIOS
from shared.config import Settings
from shared.db import Database, open_database
from shared.errors import CommitUnknown
from shared.ids import new_id
from shared.lifecycle import FailureCode, MethodType
from shared.models import gateway_ledger
from worker.gateway.ledger import Entry, EntryKind, Ledger, write
from worker.gateway.protocol import Approved, ChargeRequest, Declined, Gateway, GatewayUnavailable, OutcomeUnknown
from worker.gateway.simulator import SimulatedGateway, paypal_fee

type Sleep = Callable[[float], Awaitable[None]]

ID_FORMATS = {
    "stripe_mock": r"ch_[0-9A-Za-z]{24}",
    "square_mock": r"sq_[0-9A-Za-z]{20}",
    "paypal_mock": r"PAY-[0-9A-Z]{17}",
}


class Killed(BaseException):
    """The process died here."""


class Naps:
    """Sleeps no time at all and keeps count; at the nap with the number `at` it does `what` first."""

    def __init__(self, at: int = 0, what: Callable[[], Awaitable[object]] | None = None) -> None:
        self.taken: list[float] = []
        self._at = at
        self._what = what

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        if self._what is not None and len(self.taken) == self._at:
            await self._what()


async def die() -> None:
    raise Killed


def request_for(method_type: MethodType = MethodType.CREDIT_CARD, **changes: Any) -> ChargeRequest:
    payment_id = new_id()
    request = ChargeRequest(
        payment_id=payment_id,
        identity=str(payment_id),
        method_type=method_type,
        scenario=None,
        amount=1585,
        currency="USD",
        gateway_try=0,
    )
    return replace(request, **changes)


def gateway_over(ledger: Ledger, *, sleep: Sleep | None = None, **changes: Any) -> SimulatedGateway:
    """A gateway that approves, unless the changes say otherwise."""
    values: dict[str, Any] = {"seed": "a seed", "success_rate": 1.0, "delay_min_ms": 1000, "delay_max_ms": 3000}
    return SimulatedGateway(ledger, sleep=sleep or Naps(), **{**values, **changes})


@asynccontextmanager
async def running(database: Database, **limits: int) -> AsyncIterator[Ledger]:
    ledger = Ledger(database, **{"batch_max": 100, "queue_max": 1000, **limits})
    run = asyncio.create_task(ledger.run())
    try:
        yield ledger
    finally:
        ledger.close()
        await run


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running(database) as ledger:
        yield ledger


async def books(database: Database, request: ChargeRequest | None = None) -> list[str]:
    """The kinds of entries in the books, of one payment or of all, in the order in which they happened."""
    query = select(gateway_ledger.c.kind).order_by(gateway_ledger.c.payment_id, gateway_ledger.c.step)
    if request is not None:
        query = query.where(gateway_ledger.c.payment_id == request.payment_id)
    async with database.read() as connection:
        return list((await connection.execute(query)).scalars())


async def authorized_only(ledger: Ledger, request: ChargeRequest) -> None:
    """Leave the payment as a worker does that is killed between authorization and capture."""
    with pytest.raises(Killed):
        await gateway_over(ledger, sleep=Naps(at=2, what=die)).charge(request)


# -- a charge


async def test_a_credit_card_is_authorized_and_then_captured(database: Database, ledger: Ledger) -> None:
    request = request_for(MethodType.CREDIT_CARD)
    answer = await gateway_over(ledger).charge(request)
    assert isinstance(answer, Approved)
    assert set(answer.details) == {"authorization_code", "avs_result", "cvc_result"}
    assert re.fullmatch(r"[0-9A-Z]{6}", answer.details["authorization_code"])
    assert answer.details["avs_result"] in {"Y", "Z", "A", "U"}
    assert answer.details["cvc_result"] == "M"
    assert answer.outcome_rule == "rate"
    assert await books(database, request) == ["authorize", "capture"]


async def test_a_debit_card_is_charged_with_one_message(database: Database, ledger: Ledger) -> None:
    request = request_for(MethodType.DEBIT_CARD)
    answer = await gateway_over(ledger).charge(request)
    assert isinstance(answer, Approved)
    assert set(answer.details) == {"authorization_code"}
    assert await books(database, request) == ["sale"]


async def test_paypal_names_the_payer_and_its_fee(database: Database, ledger: Ledger) -> None:
    request = request_for(MethodType.PAYPAL, amount=10_000, currency="EUR")
    answer = await gateway_over(ledger).charge(request)
    assert isinstance(answer, Approved)
    assert answer.gateway == "paypal_mock"
    assert re.fullmatch(r"[0-9A-Z]{13}", answer.details["payer_id"])
    assert answer.details["fee"] == {"amount": 398, "currency": "EUR"}
    assert set(answer.details) == {"payer_id", "fee"}
    assert await books(database, request) == ["sale"]


@pytest.mark.parametrize(
    ("amount", "fee"),
    [(1, 1), (50, 50), (51, 51), (52, 51), (1585, 104), (10_000, 398), (10**18, 34_900_000_000_000_049)],
)
def test_the_paypal_fee_is_a_share_and_a_fixed_part_and_never_above_the_amount(amount: int, fee: int) -> None:
    assert paypal_fee(amount) == fee


async def test_every_gateway_hands_out_ids_in_its_own_format_and_none_twice(ledger: Ledger) -> None:
    gateway = gateway_over(ledger)
    requests = [request_for(method_type) for method_type in MethodType for _ in range(60)]
    answers = await asyncio.gather(*(gateway.charge(request) for request in requests))
    approved = [answer for answer in answers if isinstance(answer, Approved)]
    assert {answer.gateway for answer in approved} == set(ID_FORMATS)
    for answer in approved:
        assert re.fullmatch(ID_FORMATS[answer.gateway], answer.transaction_id)
    assert len({answer.transaction_id for answer in approved}) == len(requests)


async def test_two_payments_of_one_identity_end_alike_under_different_ids(ledger: Ledger) -> None:
    one, other = request_for(identity="order-1"), request_for(identity="order-1")
    first, second = await gateway_over(ledger).charge(one), await gateway_over(ledger).charge(other)
    assert isinstance(first, Approved)
    assert isinstance(second, Approved)
    assert first.gateway == second.gateway
    assert first.transaction_id != second.transaction_id


@pytest.mark.parametrize("failure", CARD_SCENARIOS.values())
async def test_a_failing_test_card_is_declined_and_the_decline_is_booked(
    database: Database, ledger: Ledger, failure: FailureCode
) -> None:
    for method_type in (MethodType.CREDIT_CARD, MethodType.DEBIT_CARD):
        request = request_for(method_type, scenario=failure)
        answer = await gateway_over(ledger).charge(request)
        assert isinstance(answer, Declined)
        assert (answer.failure_code, answer.outcome_rule) == (failure, "card")
        assert answer.failure_reason.endswith(".")
        assert await books(database, request) == ["decline"]


@pytest.mark.parametrize("failure", ADDRESS_SCENARIOS.values())
async def test_a_failing_test_address_is_declined_by_paypal(ledger: Ledger, failure: FailureCode) -> None:
    answer = await gateway_over(ledger).charge(request_for(MethodType.PAYPAL, scenario=failure))
    assert isinstance(answer, Declined)
    assert (answer.gateway, answer.failure_code, answer.outcome_rule) == ("paypal_mock", failure, "address")


async def test_a_declined_credit_card_shows_what_the_issuer_checked(ledger: Ledger) -> None:
    wrong_cvc = await gateway_over(ledger).charge(request_for(scenario=FailureCode.INCORRECT_CVC))
    stolen = await gateway_over(ledger).charge(request_for(scenario=FailureCode.STOLEN_CARD))
    assert set(wrong_cvc.details) == set(stolen.details) == {"avs_result", "cvc_result"}
    assert (wrong_cvc.details["cvc_result"], stolen.details["cvc_result"]) == ("N", "M")


async def test_a_test_amount_declines_only_when_amounts_are_switched_on(ledger: Ledger) -> None:
    answer = await gateway_over(ledger, failure_scenarios=True).charge(request_for(amount=1501))
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.INSUFFICIENT_FUNDS, "amount")
    assert isinstance(await gateway_over(ledger).charge(request_for(amount=1501)), Approved)


async def test_an_unset_seed_is_a_seed_too(ledger: Ledger) -> None:
    request = request_for()
    assert await gateway_over(ledger, seed=None).charge(request) == await gateway_over(ledger, seed="").charge(request)


# -- its delay


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # drawn before anything is written
async def test_a_try_takes_between_the_two_delays_and_its_steps_lie_inside(ledger: Ledger) -> None:
    for _ in range(50):
        naps = Naps()
        await gateway_over(ledger, sleep=naps, delay_min_ms=1000, delay_max_ms=1200).charge(request_for())
        assert 1.0 <= sum(naps.taken) <= 1.2000001
        assert len(naps.taken) == 3  # to the authorization, to the capture, to the answer
        assert all(nap >= 0 for nap in naps.taken)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # drawn before anything is written
async def test_delays_are_spread_over_the_whole_range(ledger: Ledger) -> None:
    delays = []
    for number in range(100):
        naps = Naps()
        request = request_for(MethodType.DEBIT_CARD, identity=f"order-{number}")
        await gateway_over(ledger, sleep=naps).charge(request)
        delays.append(sum(naps.taken))
    assert min(delays) < 1.1
    assert max(delays) > 2.9


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # drawn before anything is written
async def test_outcome_and_delay_are_the_same_in_any_order(ledger: Ledger) -> None:
    requests = [request_for(identity=f"order-{number}") for number in range(40)]
    forwards = [await told(ledger, request) for request in requests]
    again = [replace(request, payment_id=new_id()) for request in requests]
    backwards = [await told(ledger, request) for request in reversed(again)]
    assert list(reversed(backwards)) == forwards
    assert {kind for kind, *_ in forwards} == {"Approved", "Declined", "Unavailable"}


async def told(ledger: Ledger, request: ChargeRequest) -> tuple[str, ...]:
    naps = Naps()
    gateway = gateway_over(ledger, sleep=naps, success_rate=0.5)
    try:
        answer = await gateway.charge(request)
    except GatewayUnavailable:
        return ("Unavailable", *map(str, naps.taken))
    failure = answer.failure_code if isinstance(answer, Declined) else ""
    kind = "Declined" if failure else "Approved"
    return (kind, failure, answer.gateway, *map(str, naps.taken))


async def test_each_try_takes_its_own_time(ledger: Ledger) -> None:
    naps = [Naps() for _ in range(3)]
    for number, nap in enumerate(naps):
        await gateway_over(ledger, sleep=nap).charge(request_for(identity="order-1", gateway_try=number))
    assert len({sum(nap.taken) for nap in naps}) == 3


# -- asked again


@pytest.mark.parametrize("method_type", MethodType)
@pytest.mark.parametrize("scenario", [None, FailureCode.CARD_DECLINED])
async def test_a_repeated_charge_answers_the_same_and_books_once(
    database: Database, ledger: Ledger, method_type: MethodType, scenario: FailureCode | None
) -> None:
    request = request_for(method_type, scenario=scenario)
    first = await gateway_over(ledger).charge(request)
    booked = await books(database, request)
    assert await gateway_over(ledger).charge(replace(request, gateway_try=1)) == first
    assert await books(database, request) == booked


@pytest.mark.parametrize("method_type", MethodType)
async def test_fifty_identical_charges_at_once_book_once(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    request = request_for(method_type)
    gateway = gateway_over(ledger)
    answers = await asyncio.gather(*(gateway.charge(request) for _ in range(50)))
    assert isinstance(answers[0], Approved)
    assert all(answer == answers[0] for answer in answers)
    expected = ["authorize", "capture"] if method_type is MethodType.CREDIT_CARD else ["sale"]
    assert await books(database) == expected


async def test_two_ledgers_over_one_database_book_once(database: Database) -> None:
    requests = [request_for(method_type) for method_type in MethodType for _ in range(20)]
    async with running(database, batch_max=7) as one, running(database, batch_max=11) as other:
        first, second = gateway_over(one), gateway_over(other)
        ones = asyncio.gather(*(first.charge(request) for request in requests))
        others = asyncio.gather(*(second.charge(request) for request in reversed(requests)))
        assert await ones == list(reversed(await others))
    assert sorted(await books(database)) == ["authorize"] * 20 + ["capture"] * 20 + ["sale"] * 40


async def test_other_settings_do_not_change_what_is_on_record(database: Database, ledger: Ledger) -> None:
    approved, declined = request_for(), request_for(scenario=FailureCode.CARD_DECLINED)
    answers = [await gateway_over(ledger).charge(request) for request in (approved, declined)]
    other = gateway_over(ledger, seed="another seed", success_rate=0.0)
    assert [await other.charge(approved), await other.charge(replace(declined, scenario=None))] == answers
    assert await books(database, approved) == ["authorize", "capture"]
    assert await books(database, declined) == ["decline"]


async def test_a_killed_charge_is_found_and_finished_under_the_same_id(database: Database, ledger: Ledger) -> None:
    request = request_for()
    await authorized_only(ledger, request)
    assert await books(database, request) == ["authorize"]
    authorized = await ledger.find(request.payment_id)
    other = gateway_over(ledger, seed="another seed", success_rate=0.0)
    answer = await other.charge(request)
    assert isinstance(answer, Approved)
    assert authorized is not None
    assert answer == authorized.answer
    assert await books(database, request) == ["authorize", "capture"]


async def test_a_charge_killed_before_its_answer_is_found_finished(database: Database, ledger: Ledger) -> None:
    request = request_for()
    with pytest.raises(Killed):
        await gateway_over(ledger, sleep=Naps(at=3, what=die)).charge(request)
    assert await books(database, request) == ["authorize", "capture"]
    assert isinstance(await gateway_over(ledger).charge(request), Approved)
    assert await books(database, request) == ["authorize", "capture"]


async def test_a_charge_killed_at_its_start_left_nothing(database: Database, ledger: Ledger) -> None:
    request = request_for()
    with pytest.raises(Killed):
        await gateway_over(ledger, sleep=Naps(at=1, what=die)).charge(request)
    assert await books(database, request) == []


# -- a network error


async def test_a_network_error_books_nothing_on_every_try(database: Database, ledger: Ledger) -> None:
    request = request_for(amount=1503)
    for number in range(4):
        naps = Naps()
        gateway = gateway_over(ledger, failure_scenarios=True, sleep=naps)
        with pytest.raises(GatewayUnavailable) as unavailable:
            await gateway.charge(replace(request, gateway_try=number))
        assert unavailable.value.failure_code is FailureCode.NETWORK_ERROR
        assert unavailable.value.outcome_rule == "amount"
        assert sum(naps.taken) >= 1.0
    assert await books(database) == []


async def test_a_drawn_network_error_fails_every_try(database: Database, ledger: Ledger) -> None:
    gateway = gateway_over(ledger, success_rate=0.0)
    unreachable = [request for request in map(numbered, range(60)) if await is_unreachable(gateway, request)]
    assert 3 < len(unreachable) < 25  # a fifth of the failures, the same ones in each run
    for request in unreachable:
        assert await is_unreachable(gateway, replace(request, gateway_try=1))
        assert await books(database, request) == []


def numbered(number: int) -> ChargeRequest:
    return request_for(identity=f"order-{number}")


async def is_unreachable(gateway: Gateway, request: ChargeRequest) -> bool:
    try:
        await gateway.charge(request)
    except GatewayUnavailable:
        return True
    return False


async def test_a_network_error_never_denies_a_charge_that_is_on_record(database: Database, ledger: Ledger) -> None:
    charged, authorized = request_for(amount=1503), request_for(amount=1503)
    first = await gateway_over(ledger).charge(charged)
    await authorized_only(ledger, authorized)
    failing = gateway_over(ledger, failure_scenarios=True)
    assert await failing.charge(charged) == first
    assert isinstance(await failing.charge(authorized), Approved)
    assert await books(database, authorized) == ["authorize", "capture"]


# -- closing


@pytest.mark.parametrize("method_type", MethodType)
async def test_closing_a_finished_charge_answers_it(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    request = request_for(method_type)
    answer = await gateway_over(ledger).charge(request)
    booked = await books(database, request)
    assert isinstance(answer, Approved)
    assert await gateway_over(ledger).close(request) == answer
    assert await books(database, request) == booked


async def test_closing_what_is_only_authorized_lets_the_funds_go(database: Database, ledger: Ledger) -> None:
    request = request_for()
    await authorized_only(ledger, request)
    answer = await gateway_over(ledger).close(request)
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.PROCESSING_ERROR, "closed")
    assert await books(database, request) == ["authorize", "void"]
    assert await gateway_over(ledger).close(request, FailureCode.NETWORK_ERROR) == answer
    assert await gateway_over(ledger).charge(request) == answer
    assert await books(database, request) == ["authorize", "void"]


@pytest.mark.parametrize("method_type", MethodType)
async def test_a_charge_that_arrives_after_closing_is_declined(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    request = request_for(method_type)
    closed = await gateway_over(ledger).close(request)
    assert isinstance(closed, Declined)
    assert (closed.failure_code, closed.outcome_rule) == (FailureCode.PROCESSING_ERROR, "closed")
    assert await gateway_over(ledger).charge(request) == closed
    assert await books(database, request) == ["decline"]


async def test_closing_a_declined_charge_answers_its_decline(database: Database, ledger: Ledger) -> None:
    request = request_for(scenario=FailureCode.LOST_CARD)
    declined = await gateway_over(ledger).charge(request)
    assert await gateway_over(ledger).close(request) == declined
    assert await books(database, request) == ["decline"]


async def test_closing_between_authorization_and_capture_stops_the_charge(database: Database, ledger: Ledger) -> None:
    request = request_for()
    naps = Naps(at=2, what=lambda: gateway_over(ledger).close(request))
    answer = await gateway_over(ledger, sleep=naps).charge(request)
    assert isinstance(answer, Declined)
    assert answer.failure_code is FailureCode.PROCESSING_ERROR
    assert await books(database, request) == ["authorize", "void"]


async def test_closing_takes_no_time(ledger: Ledger) -> None:
    naps = Naps()
    await gateway_over(ledger, sleep=naps).close(request_for())
    assert naps.taken == []


async def test_a_payment_closed_for_its_network_error_says_what_decided_it(database: Database, ledger: Ledger) -> None:
    request = request_for(amount=1503)
    gateway = gateway_over(ledger, failure_scenarios=True)
    with pytest.raises(GatewayUnavailable):
        await gateway.charge(request)
    answer = await gateway.close(request, FailureCode.NETWORK_ERROR)
    assert isinstance(answer, Declined)
    assert (answer.failure_code, answer.outcome_rule) == (FailureCode.NETWORK_ERROR, "amount")
    assert await books(database, request) == ["decline"]


@pytest.mark.parametrize("method_type", MethodType)
async def test_charges_and_closings_at_once_agree_on_what_happened(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    gateway = gateway_over(ledger)
    for _ in range(10):
        request = request_for(method_type)
        calls = [gateway.charge(request) if number % 2 else gateway.close(request) for number in range(20)]
        answers = await asyncio.gather(*calls)
        assert all(answer == answers[0] for answer in answers)
        booked = await books(database, request)
        has_charged = booked in (["authorize", "capture"], ["sale"])
        assert has_charged == isinstance(answers[0], Approved)
        assert has_charged or booked in (["authorize", "void"], ["decline"])


# -- the books


async def test_a_batch_answers_each_payment_with_its_own_entry(database: Database, ledger: Ledger) -> None:
    entries = [entry_for(new_id(), f"ch_{number}") for number in range(250)]
    repeated = [replace(entry, answer=replace(entry.answer, gateway="another")) for entry in entries[::10]]
    answers = await asyncio.gather(*(ledger.book(entry) for entry in entries + repeated))
    assert answers == entries + entries[::10]
    assert len(await books(database)) == 250


async def test_a_batch_waits_for_another_writer_before_it_locks_what_that_needs_next(database: Database) -> None:
    """Whoever books, books in the order of payments: else each of two batches could wait for the other."""
    low, high = (entry_for(payment_id, "ch_1") for payment_id in (new_id(), new_id()))
    async with running(database) as ledger:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            await write(connection, now, [low])
            booking = asyncio.gather(*(ledger.book(entry) for entry in (high, low)))
            if not database.is_sqlite:  # there the whole transaction is a lock
                await somebody_waits_for_a_lock(database)
                await connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            await write(connection, now, [high])
        assert await booking == [high, low]


async def somebody_waits_for_a_lock(database: Database) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(10), database.read() as connection:
        while not (await connection.execute(waiting)).scalar_one():
            pass  # each look is a round trip to the server


async def test_only_one_of_the_first_steps_of_a_payment_happens(database: Database, ledger: Ledger) -> None:
    payment_id = new_id()
    entries = [
        replace(entry_for(payment_id, "ch_1"), kind=kind)
        for kind in (EntryKind.SALE, EntryKind.AUTHORIZE, EntryKind.DECLINE)
    ]
    answers = await asyncio.gather(*(ledger.book(entry) for entry in entries))
    assert answers == [entries[0]] * 3
    assert await books(database) == ["sale"]


async def test_a_payment_is_either_captured_or_voided(database: Database, ledger: Ledger) -> None:
    authorized = entry_for(new_id(), "ch_1")
    void = replace(authorized, kind=EntryKind.VOID)
    await ledger.book(authorized)
    captured = replace(authorized, kind=EntryKind.CAPTURE)
    first, second = await asyncio.gather(ledger.book(void), ledger.book(captured))
    assert first == second == void
    assert await books(database) == ["authorize", "void"]


async def test_an_unknown_payment_is_not_in_the_books(ledger: Ledger) -> None:
    assert await ledger.find(new_id()) is None


async def test_an_entry_keeps_the_amount_and_the_key_of_its_payment(database: Database, ledger: Ledger) -> None:
    request = request_for(MethodType.DEBIT_CARD, amount=2**62, currency="KWD")
    await gateway_over(ledger).charge(request)
    async with database.read() as connection:
        row = (await connection.execute(select(gateway_ledger))).one()
    assert (row.key, row.step, row.amount, row.currency) == (f"{request.payment_id}:sale", 1, 2**62, "KWD")


def entry_for(payment_id: UUID, transaction_id: str) -> Entry:
    return Entry(payment_id, EntryKind.AUTHORIZE, 100, "USD", Approved("stripe_mock", transaction_id, {}, "rate"))


# -- books that fail


class LosesItsAnswers(Database):
    """A database that commits and then does not say so."""

    def __init__(self, real: Database) -> None:
        self.clock = real.clock
        self._real = real

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._real.transaction() as connection:
            yield connection
        raise CommitUnknown("the connection broke")


@pytest.mark.parametrize("method_type", MethodType)
async def test_a_lost_commit_is_an_unknown_outcome_that_asking_again_resolves(
    database: Database, ledger: Ledger, method_type: MethodType
) -> None:
    request = request_for(method_type)
    async with running(LosesItsAnswers(database)) as unlucky:
        with pytest.raises(OutcomeUnknown):
            await gateway_over(unlucky).charge(request)
    assert len(await books(database, request)) == 1
    assert isinstance(await gateway_over(ledger).charge(request), Approved)
    assert await books(database, request) in (["authorize", "capture"], ["sale"])


async def test_an_unreachable_database_is_an_unknown_outcome(settings: Settings) -> None:
    nowhere = open_database(settings.model_copy(update={"database_url": "postgresql+asyncpg://u:p@127.0.0.1:1/none"}))
    async with running(nowhere) as ledger:
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger).charge(request_for())
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger).close(request_for())
        with pytest.raises(OutcomeUnknown):  # it looks into its books before it says that nothing happened
            await gateway_over(ledger, failure_scenarios=True).charge(request_for(amount=1503))
    await nowhere.dispose()


async def test_a_full_queue_of_bookings_is_an_unknown_outcome(database: Database) -> None:
    async with running(database, queue_max=0) as ledger:
        with pytest.raises(OutcomeUnknown):
            await gateway_over(ledger).charge(request_for())
    assert await books(database) == []
