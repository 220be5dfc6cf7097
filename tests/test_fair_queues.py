"""The queues of deliveries: whose turn it is, and what is held at once; counted, without a clock."""

from collections import Counter

from shared.database.leases import WorkItem
from tests.support.fair_queues import LIMITS, SLOW_AFTER_S, Queues, an_item, flow, one_of
from worker.deliveries.fair_queues import Pace

# -- turns


def test_owners_take_turns_and_so_do_the_flows_of_one_owner() -> None:
    world = Queues()
    a1, a2, b = one_of(1, "user:a"), one_of(2, "user:a"), one_of(3, "user:b")
    world.prove(a1, a2, b)
    world.put(a1, 3)
    world.put(a2, 2)
    world.put(b, 2)
    assert world.fill() == [a1, b, a2, b, a1, a2, a1]


def test_a_host_whose_slots_are_taken_is_passed_over_until_one_is_free() -> None:
    world = Queues()
    busy, other = one_of(1), one_of(2)
    world.prove(busy, other)
    world.put(busy, 60)
    assert len(world.fill()) == LIMITS.origin
    world.put(other, 1)
    assert world.fill() == [other]
    world.end(busy)
    assert world.fill() == [busy]


def test_a_newer_item_takes_the_place_of_an_older_one() -> None:
    world = Queues()
    receiver = flow()
    old, new = an_item(), an_item()
    for item in (old, new, WorkItem(old.id, 3), old):
        assert world.queues.put(receiver, item) is None
    assert len(world.queues) == 2
    world.fill()
    assert [turn.item for turn in world.running] == [WorkItem(old.id, 3), new]


# -- the unknown and the slow


def test_an_origin_without_a_success_begins_with_few_slots() -> None:
    world = Queues()
    world.put(flow(), 100)
    assert len(world.fill()) == LIMITS.flow_unproven == 5
    world.end(pace=Pace.UNKNOWN)
    assert len(world.fill()) == 1
    world.end(pace=Pace.FAST)
    assert len(world.running) + len(world.fill()) == LIMITS.origin


def test_a_slow_attempt_takes_the_slots_away_again() -> None:
    world = Queues()
    world.prove(flow())
    world.put(flow(), 100)
    assert len(world.fill()) == LIMITS.origin
    world.end(pace=Pace.SLOW, count=LIMITS.origin)
    assert len(world.fill()) == LIMITS.flow_unproven


def test_a_proven_flow_that_begins_to_hang_gets_no_further_slot() -> None:
    world = Queues()
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
    world = Queues()
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
    world = Queues()
    for number in range(1_000):
        world.put(flow(f"http://127.0.1.{number % 200}:18312"))
    world.fill()
    healthy = flow("http://127.0.0.1:18311")
    world.put(healthy)
    assert world.fill() == [healthy]


def test_the_unknown_and_the_slow_of_all_owners_never_hold_more_than_half() -> None:
    world = Queues()
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
    world = Queues()
    mine = [one_of(number) for number in range(10)]
    world.prove(*mine)
    for each in mine:
        world.put(each, 50)
    assert len(world.fill()) == LIMITS.owner == 100


def test_a_slow_path_leaves_slots_to_the_other_paths_of_its_host() -> None:
    world = Queues()
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
    world = Queues()
    for number in range(80):
        world.put(flow(f"http://h{number}.slow.test:80", f"user:{number}"), 2)
    assert len(world.fill()) == LIMITS.site_unproven == 25
    world.put(flow("http://good.test:80"))
    assert len(world.fill()) == 1


def test_a_slot_that_the_woken_flow_cannot_use_goes_to_the_next() -> None:
    world = Queues()
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
