"""Ready-made payment methods, and the test numbers and addresses that always succeed."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, update

from api.cards import CARD_SCENARIOS
from api.paypal_addresses import ADDRESS_SCENARIOS, mask_address
from shared.broker.heartbeats import WorkerStatus, remove_heartbeat, send_heartbeat
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import payment_methods, payments
from shared.lifecycle import FailureCode, MethodType
from shared.runtime import Runtime, open_runtime
from shared.simulation.ready_made import READY_MADE
from shared.simulation.scenarios import ALWAYS_APPROVED, Scenario
from tests.support.api_client import RunningApi, accepted, added, card, opened, order, paypal, problem
from tests.support.repository import ROOT
from tests.support.stored import row_counts
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

WAIT = {"Prefer": "wait=20"}
GOOD = [
    name
    for name, method in READY_MADE.items()
    if (scenario := method.scenario) and scenario.failure is None and not scenario.follows_rate
]
RANDOM = [name for name, method in READY_MADE.items() if (scenario := method.scenario) is None or scenario.follows_rate]
# The gateway settles these later.
LATE = [name for name, method in READY_MADE.items() if method.scenario and method.scenario.is_pending]
# Without a return_url these fail.
CHALLENGED = [name for name, method in READY_MADE.items() if method.scenario and method.scenario.is_challenged]
FAILING = [name for name in READY_MADE if name not in {*GOOD, *RANDOM}]
WORKER = WorkerStatus(
    worker="w", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0.0, uptime_s=1.0, version="0.2.0"
)
WORKER_OF_0_1 = replace(WORKER, worker="old", version=None)


async def pay(client: httpx.AsyncClient, method_id: str) -> dict[str, Any]:
    """The payment after its end."""
    answer = await client.post("/payments", json=order(method_id), headers=WAIT)
    assert answer.status_code == 201, answer.text
    payment: dict[str, Any] = answer.json()
    return payment


@pytest.fixture
async def failing_rate(make_settings: Callable[..., Settings]) -> Any:
    """The parts of an installation where the success rate approves nothing."""
    runtime = open_runtime(make_settings(payment_success_rate=0))
    yield runtime
    await runtime.close()


# -- the catalogue


def test_every_test_value_has_a_ready_made_method() -> None:
    of_cards = {(method.type, *method.details.values()): method.scenario for method in READY_MADE.values()}
    for number, scenario in CARD_SCENARIOS.items():
        assert of_cards[MethodType.CREDIT_CARD, "visa", number[-4:], 12, 2099] == scenario, number
    addresses = {
        method.details["email"]: method.scenario for method in READY_MADE.values() if "email" in method.details
    }
    for address, scenario in ADDRESS_SCENARIOS.items():
        assert addresses[mask_address(address)] == scenario, address


def test_the_names_and_ids_of_ready_made_methods_never_change() -> None:
    assert READY_MADE["pm_test_visa"].id == UUID("5a5bbd75-4821-523f-8943-c59ddbf06985")
    assert len({method.id for method in READY_MADE.values()}) == len(READY_MADE)
    assert {"pm_test_visa", "pm_test_debit", "pm_test_paypal"} <= set(GOOD)
    assert RANDOM == [
        "pm_test_authentication_required", "pm_test_3ds_required", "pm_test_random_card", "pm_test_random_debit",
        "pm_test_random_paypal",
    ]  # fmt: skip
    assert LATE == ["pm_test_paypal_pending", "pm_test_paypal_pending_declined"]
    scenarios = [*CARD_SCENARIOS.values(), *ADDRESS_SCENARIOS.values()]
    assert len(FAILING) == sum(scenario.failure is not None for scenario in scenarios)


def test_the_table_of_the_documents_has_every_name() -> None:
    page = (ROOT / "docs" / "simulator.md").read_text()
    assert set(re.findall(r"`(pm_test_\w+)`", page)) == set(READY_MADE)


async def test_the_list_has_all_of_them(user: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    answer = await user.get("/test-methods")
    assert answer.status_code == 200
    listed = {method["id"]: method for method in answer.json()["test_methods"]}
    assert list(listed) == list(READY_MADE)
    assert {listed[name]["outcome"] for name in GOOD} == {"succeeds"}
    assert {listed[name]["outcome"] for name in RANDOM} == {"random"}
    assert listed["pm_test_lost_card"]["failure_code"] == "lost_card"
    assert (await admin.get("/test-methods")).json() == answer.json()


async def test_the_platform_has_the_list_beside_its_payments(running_api: RunningApi) -> None:
    platform = httpx.AsyncClient(transport=running_api.transport, base_url=running_api.url)
    platform.headers = running_api.user().headers
    assert len((await platform.get("/api/payments/test-methods")).json()["test_methods"]) == len(READY_MADE)


# -- paying with them


async def test_every_ready_made_method_ends_as_it_says(failing_rate: Runtime) -> None:
    async with opened(failing_rate) as api, working(failing_rate):
        user = api.user()
        for name, method in READY_MADE.items():
            if name in LATE:
                continue
            payment = await pay(user, name)
            assert payment["payment_method_id"] == name
            assert payment["payment_method_details"] == {"type": method.type, **method.details}
            assert payment["status"] == ("COMPLETED" if name in GOOD else "FAILED"), name
            if name in CHALLENGED:
                assert payment["failure_code"] == "authentication_required"
                continue
            decided = "address" if method.type is MethodType.PAYPAL else "card"
            assert payment["outcome_rule"] == ("rate" if name in RANDOM else decided), name
            if method.scenario is not None:
                assert payment["failure_code"] == method.scenario.failure


async def test_a_ready_made_method_is_shown_by_its_name_wherever_the_payment_is(running_api: RunningApi) -> None:
    service = running_api.service()
    key = {"Idempotency-Key": "k"}
    body = order("pm_test_visa", user_id="7")
    first = (await service.post("/payments", json=body, headers=key)).json()
    again = (await service.post("/payments", json=body, headers=key)).json()
    read = (await service.get(f"/payments/{first['id']}")).json()
    [listed] = (await service.get("/payments")).json()["payments"]
    assert first == again == read == listed
    assert (first["payment_method_id"], first["user_id"]) == ("pm_test_visa", "7")


async def test_a_ready_made_method_belongs_to_no_user(user: httpx.AsyncClient, running_api: RunningApi) -> None:
    await accepted(user, order("pm_test_paypal"))
    assert (await user.get("/payment-methods")).json() == {"payment_methods": []}
    assert "payment_methods" not in await row_counts(running_api.database)
    for method_id in ("pm_test_paypal", str(READY_MADE["pm_test_paypal"].id)):
        for call in (user.get, user.delete):
            problem(await call(f"/payment-methods/{method_id}"), 404, "not_found")
        problem(await user.patch(f"/payment-methods/{method_id}", json={"is_default": True}), 404, "not_found")
    # The id in the column is no way to pay: only the name is.
    for unknown in (str(READY_MADE["pm_test_paypal"].id), "pm_test_", "pm_test_no", "PM_TEST_VISA"):
        refused = problem(await user.post("/payments", json=order(unknown)), 422, "payment_method_unusable")
        assert [error["pointer"] for error in refused["errors"]] == ["/payment_method_id"]


async def test_one_batch_may_mix_ready_made_methods_with_those_of_users(running_api: RunningApi) -> None:
    user = running_api.user()
    own = await added(user)
    for method_id in (own, "pm_test_debit", own, "pm_test_random_paypal"):
        assert (await accepted(user, order(method_id)))["payment_method_id"] == method_id


# -- numbers and addresses that always succeed


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (card("4242424242424242"), "card"),
        (card("4242 4242 4242 4242", type="DEBIT_CARD"), "card"),
        (paypal("success@paypal.test"), "address"),
        (paypal("Success@PayPal.test"), "address"),
    ],
)
async def test_a_good_test_value_succeeds_whatever_the_rate(
    failing_rate: Runtime, body: dict[str, Any], rule: str
) -> None:
    async with opened(failing_rate) as api, working(failing_rate):
        payment = await pay(api.user(), await added(api.user(), body))
    assert (payment["status"], payment["outcome_rule"], payment["failure_code"]) == ("COMPLETED", rule, None)


@pytest.mark.parametrize("body", [card("5555555555554444"), card("4012888888881881"), paypal("success@example.com")])
async def test_every_other_good_number_and_address_follows_the_rate(
    failing_rate: Runtime, body: dict[str, Any]
) -> None:
    async with opened(failing_rate) as api, working(failing_rate):
        payment = await pay(api.user(), await added(api.user(), body))
    assert (payment["status"], payment["outcome_rule"]) == ("FAILED", "rate")


async def test_a_method_that_an_older_version_added_behaves_like_a_new_one(running_api: RunningApi) -> None:
    """0.1 stored no scenario for these, and the number is gone: the fingerprint tells."""
    user, database = running_api.user(), running_api.database
    good, declined = await added(user), await added(user, card("4000000000000341"))
    async with database.transaction() as connection:
        await connection.execute(update(payment_methods).values(scenario=None))
    for method_id, copied in ((good, {"is_approved": True}), (declined, {"scenario": "card_declined"})):
        payment = await accepted(user, order(method_id))
        method = await stored_method(database, payment)
        assert method | copied == method


async def test_a_failing_method_fails_also_when_its_fingerprint_is_of_an_older_key(running_api: RunningApi) -> None:
    user, database = running_api.user(), running_api.database
    method_id = await added(user, card("4000000000009987"))
    async with database.transaction() as connection:
        await connection.execute(update(payment_methods).values(fingerprint="of another DATA_KEY"))
    method = await stored_method(database, await accepted(user, order(method_id)))
    assert method["scenario"] == "lost_card"


async def stored_method(database: Database, payment: dict[str, Any]) -> dict[str, Any]:
    """The copy of the method in the payment's row."""
    async with database.read() as connection:
        found = await connection.execute(select(payments.c.method).where(payments.c.id == UUID(payment["id"])))
    method: dict[str, Any] = found.scalar_one()
    return method


# -- where simulation is off


async def test_without_simulation_there_are_no_ready_made_methods(make_settings: Callable[..., Settings]) -> None:
    runtime = open_runtime(make_settings(simulation="off"))
    async with opened(runtime) as api:
        user = api.user()
        problem(await user.get("/test-methods"), 403, "simulation_disabled")
        refused = problem(await user.post("/payments", json=order("pm_test_visa")), 403, "simulation_disabled")
        assert refused["detail"].endswith("Pay with a payment method of the user.")
        assert await row_counts(api.database) == {}
        await accepted(user, order(await added(user)))
    await runtime.close()


# -- while a worker of 0.1 is alive


async def test_what_a_worker_of_0_1_would_do_wrong_waits_until_it_is_gone(running_api: RunningApi) -> None:
    assert running_api.api is not None
    user, broker, versions = running_api.user(), running_api.runtime.broker, running_api.api.worker_versions
    good, address = await added(user), await added(user, paypal("success@paypal.test"))
    plain, declined = await added(user, card("5555555555554444")), await added(user, card("4000000000000002"))
    await send_heartbeat(broker, WORKER)
    await send_heartbeat(broker, WORKER_OF_0_1)
    await versions.run_once()
    before = await row_counts(running_api.database)
    for method_id in ("pm_test_visa", "pm_test_random_card", "pm_test_lost_card", good, address):
        answer = await user.post("/payments", json=order(method_id), headers={"Idempotency-Key": method_id})
        refused = problem(answer, 503, "unavailable")
        assert (answer.headers["retry-after"], "older version" in refused["detail"]) == ("1", True)
    # A page for the customer is new, whatever the method.
    with_page = order(plain, return_url="https://shop.example/paid")
    problem(await user.post("/payments", json=with_page), 503, "unavailable")
    challenged = await added(user, card("4000002500003155"))
    problem(await user.post("/payments", json=order(challenged)), 503, "unavailable")
    before["payment_methods"] += 1
    assert await row_counts(running_api.database) == before
    for method_id in (plain, declined):
        await accepted(user, order(method_id))
    await remove_heartbeat(broker, WORKER_OF_0_1.worker)
    await versions.run_once()
    # The refusal has bound no key.
    for method_id in ("pm_test_visa", good):
        answer = await user.post("/payments", json=order(method_id), headers={"Idempotency-Key": method_id})
        assert answer.status_code == 202


async def test_a_new_api_knows_of_an_older_worker_before_its_first_request(runtime: Runtime) -> None:
    await send_heartbeat(runtime.broker, WORKER_OF_0_1)
    async with opened(runtime) as api:
        problem(await api.user().post("/payments", json=order("pm_test_visa")), 503, "unavailable")


def test_a_worker_of_0_1_can_read_every_copy_that_it_must_charge() -> None:
    """Such a worker reads `scenario` as a failure code, and nothing else."""
    for method in READY_MADE.values():
        scenario = method.copy_for_payment()["scenario"]
        assert scenario is None or FailureCode(scenario)
    assert Scenario(FailureCode.LOST_CARD).is_known_to_0_1
    assert not ALWAYS_APPROVED.is_known_to_0_1
