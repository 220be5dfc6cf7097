"""The queues of deliveries: what finds room, what is held, what is remembered, and what is kept of nothing."""

import pytest

from shared.webhooks.flows import registered_domain, site_of
from tests.support.fair_queues import Queues, an_item, flow, one_of
from tests.support.manual_clock import ManualClock
from worker.deliveries import fair_queues
from worker.deliveries.fair_queues import ITEMS_MAX, Pace
from worker.deliveries.flow_memory import FLOWS_REMEMBERED, FlowMemory

# -- room


def test_an_owners_backlog_is_never_larger_than_the_room_for_the_others() -> None:
    world = Queues(slots=0)
    while (wait_s := world.queues.put(flow(), an_item())) is None:
        pass
    assert len(world.queues) == ITEMS_MAX // 2
    assert wait_s == ITEMS_MAX / 2 / fair_queues.DRAINED_PER_S
    assert world.queues.put(flow(owner="user:2"), an_item()) is None


def test_a_burst_of_ten_thousand_for_one_host_finds_room() -> None:
    world = Queues()
    for number in range(20):
        world.put(flow(owner="service:shop", receiver=f"endpoint-{number}"), 500)
    sent = 0
    while started := world.fill():
        sent += len(started)
        world.end(count=len(started))
    assert sent == 10_000


def test_what_waits_at_a_gate_is_in_no_other_deliverys_way() -> None:
    world = Queues()
    world.put(flow(), 100)
    assert world.queues.unblocked_count == 100
    world.fill()
    assert (len(world.queues), world.queues.unblocked_count) == (95, 0)
    world.put(flow(), 5)
    world.put(one_of(2), 3)
    assert (len(world.queues), world.queues.unblocked_count) == (103, 3)
    world.end()
    assert world.queues.unblocked_count == 103


# -- holds


def test_a_held_flow_takes_nothing_until_its_time_and_gives_back_what_waits() -> None:
    world = Queues()
    held, other = one_of(1), one_of(2)
    world.put(held, 10)
    world.fill()
    assert len(world.queues.hold(held, 60)) == 5
    assert len(world.queues) == world.queues.unblocked_count == 0
    world.clock.now += 20
    assert world.queues.put(held, an_item()) == pytest.approx(40)
    assert world.queues.hold(held, 10) == []
    assert world.queues.put(held, an_item()) == pytest.approx(40)
    world.put(other)
    assert world.fill() == [other]
    world.clock.now += 41
    world.put(held)


def test_nothing_is_kept_of_what_is_done_with() -> None:
    world = Queues()
    flows = [one_of(number, f"user:{number % 7}") for number in range(200)]
    for each in flows:
        world.put(each, 20)
    for number in range(10_000):
        world.fill()
        if not world.running:
            break
        world.end(pace=list(Pace)[number % 3])
        if number == 500:
            world.queues.hold(flows[3], 1)
    assert len(world.queues) == world.queues.unblocked_count == 0
    assert len(world.queues._gates) == 0
    assert not world.queues._queues
    assert not world.queues._turns
    assert not world.queues._items_by_owner
    assert not world.queues._running


def test_dropping_everything_leaves_nothing() -> None:
    world = Queues()
    for number in range(30):
        world.put(flow(f"http://h{number}.slow.test:80"), 3)
    world.fill()
    world.queues.clear()
    assert len(world.queues) == world.queues.unblocked_count == 0
    world.end(count=len(world.running))
    assert world.fill() == []


# -- sites


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.slow.test", "slow.test"),
        ("SLOW.test.", "slow.test"),
        ("shop.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("a.example.de", "example.de"),
        ("co.uk", "co.uk"),
        ("redis", "redis"),
    ],
)
def test_the_registered_domain_of_a_name(name: str, domain: str) -> None:
    assert registered_domain(name) == domain


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        ("https://a.shop.example:443", "shop.example"),
        ("http://127.0.1.7:80", "127.0.1.0/24"),
        ("http://2001:db8:1:2::3:8080", "2001:db8:1::/48"),
        ("order", "order"),
    ],
)
def test_the_site_of_an_origin(origin: str, site: str) -> None:
    assert site_of(origin) == site


# -- memory


def test_the_flows_that_were_used_last_are_remembered() -> None:
    clock = ManualClock()
    memory = FlowMemory(clock)
    for number in range(FLOWS_REMEMBERED + 1):
        memory.prove(one_of(number))
        memory.prove(one_of(0))
        memory.hold(one_of(number), 60)
    assert memory.is_proven(one_of(0))
    assert memory.is_proven(one_of(FLOWS_REMEMBERED))
    assert not memory.is_proven(one_of(1))
    assert memory.held_for(one_of(0)) is None
    assert memory.held_for(one_of(1)) == 60
