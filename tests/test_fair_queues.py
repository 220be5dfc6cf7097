"""The queues of deliveries: whose turn it is, what is held at once, and what is kept; counted, without a clock."""

from collections import Counter

import pytest

from shared.database.leases import WorkItem
from shared.ids import new_id
from shared.webhooks.flows import Flow, registered_domain, site_of
from tests.support.manual_clock import ManualClock
from worker.deliveries import fair_queues
from worker.deliveries.fair_queues import ITEMS_MAX, FairQueues, Pace, Turn
from worker.deliveries.flow_memory import FLOWS_REMEMBERED, FlowMemory
from worker.deliveries.shares import Limits

LIMITS = Limits.of(slots=200, slots_per_origin=50)
SLOW_AFTER_S = 2.0


class World:
    """Queues with a pool of slots that is never larger than `slots`."""

    def __init__(self, slots: int = 200, limits: Limits = LIMITS) -> None:
        self.clock = ManualClock()
        self.queues = FairQueues(limits, slow_after_s=SLOW_AFTER_S, clock=self.clock)
        self.slots = slots
        self.running: list[Turn] = []

    def put(self, flow: Flow, count: int = 1) -> None:
        for _ in range(count):
            assert self.queues.put(flow, an_item()) is None

    def fill(self) -> list[Flow]:
        """Start attempts while there are slots; return their flows in order."""
        started = []
        while len(self.running) < self.slots and (turn := self.queues.take()):
            self.queues.began(turn)
            self.running.append(turn)
            started.append(turn.flow)
        return started

    def end(self, flow: Flow | None = None, pace: Pace = Pace.FAST, count: int = 1) -> None:
        """End attempts, the oldest first."""
        for _ in range(count):
            turn = next(turn for turn in self.running if flow in {None, turn.flow})
            self.running.remove(turn)
            self.queues.release(turn, pace)

    def prove(self, *flows: Flow) -> None:
        """Let an attempt of each flow be accepted."""
        for flow in flows:
            self.put(flow)
            assert self.fill() == [flow]
            self.end(flow)


def an_item() -> WorkItem:
    return WorkItem(new_id(), 0)


def flow(origin: str = "https://shop.example:443", owner: str = "user:1", receiver: str | None = None) -> Flow:
    return Flow(origin, receiver or owner, owner)


def one_of(number: int, owner: str = "user:1") -> Flow:
    """A flow to a site of its own."""
    return flow(f"https://shop{number}.example:443", owner)


# -- turns


def test_owners_take_turns_and_so_do_the_flows_of_one_owner() -> None:
    world = World()
    a1, a2, b = one_of(1, "user:a"), one_of(2, "user:a"), one_of(3, "user:b")
    world.prove(a1, a2, b)
    world.put(a1, 3)
    world.put(a2, 2)
    world.put(b, 2)
    assert world.fill() == [a1, b, a2, b, a1, a2, a1]


def test_a_host_whose_slots_are_taken_is_passed_over_until_one_is_free() -> None:
    world = World()
    busy, other = one_of(1), one_of(2)
    world.prove(busy, other)
    world.put(busy, 60)
    assert len(world.fill()) == LIMITS.origin
    world.put(other, 1)
    assert world.fill() == [other]
    world.end(busy)
    assert world.fill() == [busy]


def test_a_newer_item_takes_the_place_of_an_older_one() -> None:
    world = World()
    receiver = flow()
    old, new = an_item(), an_item()
    for item in (old, new, WorkItem(old.id, 3), old):
        assert world.queues.put(receiver, item) is None
    assert len(world.queues) == 2
    world.fill()
    assert [turn.item for turn in world.running] == [WorkItem(old.id, 3), new]


# -- the unknown and the slow


def test_an_origin_without_a_success_begins_with_few_slots() -> None:
    world = World()
    world.put(flow(), 100)
    assert len(world.fill()) == LIMITS.flow_unproven == 5
    world.end(pace=Pace.UNKNOWN)
    assert len(world.fill()) == 1
    world.end(pace=Pace.FAST)
    assert len(world.running) + len(world.fill()) == LIMITS.origin


def test_a_slow_attempt_takes_the_slots_away_again() -> None:
    world = World()
    world.prove(flow())
    world.put(flow(), 100)
    assert len(world.fill()) == LIMITS.origin
    world.end(pace=Pace.SLOW, count=LIMITS.origin)
    assert len(world.fill()) == LIMITS.flow_unproven


def test_a_proven_flow_that_begins_to_hang_gets_no_further_slot() -> None:
    world = World()
    hanging, other = one_of(1), one_of(2)
    world.prove(hanging, other)
    world.put(hanging, 100)
    assert len(world.fill()) == LIMITS.origin
    world.clock.now += SLOW_AFTER_S + 0.1
    world.end(hanging, Pace.UNKNOWN, count=30)
    assert world.fill() == []
    world.end(hanging, Pace.UNKNOWN, count=LIMITS.origin - 30)
    assert len(world.fill()) == LIMITS.flow_unproven
    world.put(other, 10)
    assert world.fill() == [other] * 10


def test_one_owner_with_two_hundred_hanging_addresses_keeps_few_slots() -> None:
    world = World()
    for number in range(1_000):
        world.put(flow(f"http://127.0.1.{number % 200}:18312"))
    # One operator usually has the whole network.
    assert len(world.fill()) == LIMITS.owner_at_site_unproven == 10
    for number in range(1_000):
        world.put(flow(f"http://10.{number % 200}.0.1:80"))
    assert len(world.running) + len(world.fill()) == LIMITS.owner_unproven == 40
    healthy = flow("http://127.0.0.1:18311", "user:2")
    world.put(healthy, 3)
    assert world.fill() == [healthy] * 3


def test_the_same_owners_other_receiver_has_a_turn_beside_a_hanging_network() -> None:
    world = World()
    for number in range(1_000):
        world.put(flow(f"http://127.0.1.{number % 200}:18312"))
    world.fill()
    healthy = flow("http://127.0.0.1:18311")
    world.put(healthy)
    assert world.fill() == [healthy]


def test_the_unknown_and_the_slow_of_all_owners_never_hold_more_than_half() -> None:
    world = World()
    known = one_of(0, "user:0")
    world.prove(known)
    for number in range(2_000):
        world.put(flow(f"http://10.{number % 200}.0.1:80", f"user:{number % 50}"))
    assert len(world.fill()) == LIMITS.all_unproven == 100
    world.put(known, 60)
    assert world.fill() == [known] * LIMITS.origin
    # An unknown receiver of another owner comes when the next slot of that half is free, before the backlog.
    newcomer = one_of(9, "user:new")
    world.put(newcomer)
    assert world.fill() == []
    turns = []
    for _ in range(52):
        world.end(next(turn.flow for turn in world.running if turn.flow != known), Pace.SLOW)
        turns += world.fill()
        if newcomer in turns:
            break
    assert newcomer in turns


def test_one_owner_never_holds_more_than_half_however_fast_the_receivers_were() -> None:
    world = World()
    mine = [one_of(number) for number in range(10)]
    world.prove(*mine)
    for each in mine:
        world.put(each, 50)
    assert len(world.fill()) == LIMITS.owner == 100


def test_a_slow_path_leaves_slots_to_the_other_paths_of_its_host() -> None:
    world = World()
    host = "https://gateway.example:443"
    slow = [flow(host, "service:shop", f"endpoint-{number}") for number in range(4)]
    quick = flow(host, "user:1")
    for each in slow:
        world.put(each, 500)
    assert Counter(world.fill()).total() == LIMITS.owner_at_site_unproven
    world.put(quick, 3)
    assert world.fill() == [quick] * 3
    world.end(quick)
    world.put(quick, 100)
    assert len(world.fill()) == LIMITS.origin - 2 - LIMITS.owner_at_site_unproven


def test_names_of_one_registered_domain_share_its_slots() -> None:
    world = World()
    for number in range(80):
        world.put(flow(f"http://h{number}.slow.test:80", f"user:{number}"), 2)
    assert len(world.fill()) == LIMITS.site_unproven == 25
    world.put(flow("http://good.test:80"))
    assert len(world.fill()) == 1


def test_a_slot_that_the_woken_flow_cannot_use_goes_to_the_next() -> None:
    world = World()
    holding = [flow(f"http://h{number}.slow.test:80", f"user:{number // 10}") for number in range(25)]
    first, second = flow("http://first.slow.test:80", "user:first"), flow("http://second.slow.test:80", "user:second")
    for each in holding:
        world.put(each)
    assert len(world.fill()) == LIMITS.site_unproven
    world.put(first)
    world.put(second)
    assert world.fill() == []
    # Now the first of the two that wait for the site has also used up the share of its owner.
    for number in range(LIMITS.owner_unproven):
        world.put(one_of(number, "user:first"))
    assert len(world.fill()) == LIMITS.owner_unproven
    world.end(holding[0], Pace.UNKNOWN)
    assert world.fill() == [second]
    world.end(one_of(0, "user:first"), Pace.UNKNOWN)
    assert world.fill() == []
    world.end(holding[1], Pace.UNKNOWN)
    assert world.fill() == [first]


# -- room


def test_an_owners_backlog_is_never_larger_than_the_room_for_the_others() -> None:
    world = World(slots=0)
    while (wait_s := world.queues.put(flow(), an_item())) is None:
        pass
    assert len(world.queues) == ITEMS_MAX // 2
    assert wait_s == ITEMS_MAX / 2 / fair_queues.DRAINED_PER_S
    assert world.queues.put(flow(owner="user:2"), an_item()) is None


def test_a_burst_of_ten_thousand_for_one_host_finds_room() -> None:
    world = World()
    for number in range(20):
        world.put(flow(owner="service:shop", receiver=f"endpoint-{number}"), 500)
    sent = 0
    while started := world.fill():
        sent += len(started)
        world.end(count=len(started))
    assert sent == 10_000


def test_what_waits_at_a_gate_is_in_no_other_deliverys_way() -> None:
    world = World()
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
    world = World()
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
    world = World()
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
    world = World()
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
