"""The queues by host: who gets the next slot, and what they hold at most."""

from shared.database.leases import WorkItem
from shared.ids import new_id
from worker.deliveries.host_queues import ITEMS_MAX, ITEMS_PER_HOST_MAX, HostQueues


def an_item() -> WorkItem:
    return WorkItem(new_id(), 0)


def taken(queues: HostQueues) -> list[str]:
    """Take turns until all slots are taken; return their hosts."""
    hosts = []
    while turn := queues.take():
        hosts.append(turn[0])
    return hosts


def test_hosts_take_turns() -> None:
    queues = HostQueues(slots_per_host=10)
    for host in ("a", "a", "a", "b", "c", "c"):
        assert queues.put(host, an_item())
    assert len(queues) == 6
    assert taken(queues) == ["a", "b", "c", "a", "c", "a"]
    assert len(queues) == 0


def test_a_host_without_a_slot_is_passed_over_until_one_is_released() -> None:
    queues = HostQueues(slots_per_host=2)
    for host in ("a", "a", "a", "a", "b"):
        queues.put(host, an_item())
    assert taken(queues) == ["a", "b", "a"]
    queues.release("a", was_slow=False)
    assert taken(queues) == ["a"]
    queues.release("a", was_slow=False)
    queues.release("a", was_slow=False)
    assert taken(queues) == ["a"]


def test_a_newer_item_takes_the_place_of_an_older_one() -> None:
    queues = HostQueues(slots_per_host=2)
    old, new = an_item(), an_item()
    newer = WorkItem(old.id, 3)
    for item in (old, new, newer, old):
        assert queues.put("a", item)
    assert [queues.take(), queues.take(), queues.take()] == [("a", newer), ("a", new), None]


def test_the_queues_are_bounded_each_and_together() -> None:
    queues = HostQueues(slots_per_host=1)
    assert [queues.put("a", an_item()) for _ in range(ITEMS_PER_HOST_MAX + 1)].count(True) == len(queues)
    assert len(queues) == ITEMS_PER_HOST_MAX
    for number in range(ITEMS_MAX):
        queues.put(str(number), an_item())
    assert len(queues) == ITEMS_MAX
    assert not queues.put("z", an_item())


def test_a_slow_host_keeps_few_slots_until_it_answers_sooner() -> None:
    queues = HostQueues(slots_per_host=20)
    for _ in range(100):
        queues.put("slow", an_item())
    assert len(taken(queues)) == 20
    for _ in range(20):
        queues.release("slow", was_slow=True)
    assert len(taken(queues)) == 2
    queues.release("slow", was_slow=False)
    assert len(taken(queues)) == 19
    queues.release("slow", was_slow=None)
    assert len(taken(queues)) == 1


def test_nothing_is_kept_of_a_host_that_is_done_with() -> None:
    queues = HostQueues(slots_per_host=1)
    queues.put("a", an_item())
    queues.take()
    queues.release("a", was_slow=True)
    assert vars(queues) == vars(HostQueues(slots_per_host=1))
