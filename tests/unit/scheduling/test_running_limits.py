from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling import (
    Dispatcher,
    FlowKey,
    QueuedRequest,
    QueueFull,
    QueueLimits,
    RunningLimits,
    SlotReservation,
)

TWO_EACH = RunningLimits(2)


def dispatcher(
    slots: int = 4, limits: RunningLimits = TWO_EACH, *, max_queued: int = 1000
) -> Dispatcher[str]:
    created: Dispatcher[str] = Dispatcher(QueueLimits(max_queued=max_queued), running_limits=limits)
    created.add("a", slots, 0)
    return created


def enqueue(balancer: Dispatcher[str], *names: str, priority: int = 0) -> None:
    """Queue requests named by their key and a number, such as ann1."""
    for name in names:
        key = name.rstrip("0123456789")
        balancer.enqueue(name, 1, 0, flow_key=FlowKey(priority, key))


def dispatched(balancer: Dispatcher[str]) -> dict[str, SlotReservation[str]]:
    return {each.queued.request: each for each in balancer.dispatch(0)}


def names(queue: Iterable[QueuedRequest[str]]) -> list[str]:
    return [queued.request for queued in queue]


def test_one_key_does_not_get_all_slots() -> None:
    balancer = dispatcher()
    enqueue(balancer, "ann1", "ann2", "ann3", "ann4", "ben1")

    assert dispatched(balancer).keys() == {"ann1", "ann2", "ben1"}
    assert (balancer.queued, balancer.held) == (2, 2)
    enqueue(balancer, "ben2")
    assert dispatched(balancer).keys() == {"ben2"}


def test_the_next_request_of_a_key_runs_when_one_of_it_has_ended() -> None:
    balancer = dispatcher()
    enqueue(balancer, "ann1", "ann2", "ann3", "ann4")
    running = dispatched(balancer)
    balancer.release(running["ann2"], 1)

    assert dispatched(balancer).keys() == {"ann3"}
    assert balancer.held == 1


def test_a_slot_of_an_aborted_request_counts_until_it_is_released() -> None:
    balancer = dispatcher()
    enqueue(balancer, "ann1", "ann2", "ann3")
    running = dispatched(balancer)
    balancer.abort(running["ann1"], 1)
    assert not dispatched(balancer)

    balancer.release(running["ann1"], 2)
    assert dispatched(balancer).keys() == {"ann3"}


def test_a_request_of_higher_priority_runs_before_others_of_its_key() -> None:
    balancer = dispatcher(slots=1, limits=RunningLimits(1))
    enqueue(balancer, "ben1")
    running = dispatched(balancer)
    enqueue(balancer, "ann1", "ann2")
    enqueue(balancer, "ann3", priority=1)
    assert balancer.held == 2

    balancer.release(running["ben1"], 1)
    assert dispatched(balancer).keys() == {"ann3"}


def test_keys_may_have_limits_of_their_own() -> None:
    balancer = dispatcher(8, RunningLimits(None, {"ann": 1}))
    enqueue(balancer, "ann1", "ann2", "ben1", "ben2", "ben3")

    assert dispatched(balancer).keys() == {"ann1", "ben1", "ben2", "ben3"}


def test_a_held_request_may_be_cancelled_and_times_out() -> None:
    balancer = dispatcher(limits=RunningLimits(1))
    enqueue(balancer, "ann1", "ann2", "ann3")
    running = dispatched(balancer)
    second, third = balancer.queue
    assert balancer.cancel(second)
    assert names(balancer.take_expired(1000)) == ["ann3"]
    assert not balancer.cancel(third)

    balancer.release(running["ann1"], 1000)
    assert (balancer.queued, balancer.queued_bytes, balancer.held) == (0, 0, 0)


def test_a_cancelled_request_makes_way_for_a_held_one() -> None:
    balancer = dispatcher(slots=1, limits=RunningLimits(1))
    enqueue(balancer, "ben1")
    running = dispatched(balancer)
    enqueue(balancer, "ann1", "ann2")
    first, second = balancer.queue
    assert [balancer.queue.position(each) for each in (first, second)] == [1, 2]
    balancer.cancel(first)

    balancer.release(running["ben1"], 1)
    assert dispatched(balancer).keys() == {"ann2"}


def test_a_request_that_returns_to_the_queue_runs_before_later_ones_of_its_key() -> None:
    balancer = dispatcher(limits=RunningLimits(1))
    enqueue(balancer, "ann1", "ann2")
    failed = dispatched(balancer)["ann1"]
    balancer.release(failed, 1)
    balancer.requeue(failed.queued)

    assert dispatched(balancer).keys() == {"ann1"}
    assert balancer.held == 1


def test_a_full_queue_of_one_key_keeps_no_other_key_from_a_free_slot() -> None:
    balancer = dispatcher(max_queued=3)
    enqueue(balancer, "ann1", "ann2")
    dispatched(balancer)
    enqueue(balancer, "ann3", "ann4", "ann5")
    with pytest.raises(QueueFull):
        enqueue(balancer, "ann6")

    enqueue(balancer, "ben1")
    assert dispatched(balancer).keys() == {"ben1"}


def test_a_request_that_takes_several_slots_counts_as_many() -> None:
    balancer = dispatcher(8, RunningLimits(4))
    two = Tasks(completions=2)
    for name in ("ann1", "ann2", "ann3"):
        balancer.enqueue(name, 1, 0, flow_key=FlowKey(0, "ann"), tasks=two)
    running = dispatched(balancer)
    assert running.keys() == {"ann1", "ann2"}
    assert (balancer.busy_slots, balancer.held, balancer.demand) == (4, 1, 4)

    balancer.release(running["ann1"], 1)
    assert not dispatched(balancer), "one of its two slots is busy still"
    balancer.release(running["ann1"].further[0], 1)
    assert dispatched(balancer).keys() == {"ann3"}


def test_a_request_for_several_slots_is_not_overtaken_by_others_of_its_key() -> None:
    balancer = dispatcher(8, RunningLimits(4))
    enqueue(balancer, "ann1")
    running = dispatched(balancer)
    balancer.enqueue("ann2", 1, 0, flow_key=FlowKey(0, "ann"), tasks=Tasks(inputs=4))
    enqueue(balancer, "ann3", "ben1")
    assert dispatched(balancer).keys() == {"ben1"}
    assert balancer.held == 2
    balancer.release(running["ann1"], 1)
    assert list(dispatched(balancer)) == ["ann2"]


KEYS = ("ann", "ben", "cid")
TASKS = (ONE_TASK, Tasks(completions=2), Tasks(inputs=3), Tasks(2, 2))
LIMITS = RunningLimits(3, {"ann": 1, "ben": 2})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arrive", "release", "cancel", "requeue"]),
            st.integers(0, 1_000_000),
        ),
        max_size=120,
    )
)
def test_no_key_exceeds_its_limit_and_no_slot_is_left_free_for_nothing(
    steps: list[tuple[str, int]],
) -> None:
    balancer = dispatcher(slots=4, limits=LIMITS)
    running: list[SlotReservation[str]] = []
    for step, number in steps:
        key = KEYS[number % 3]
        if step == "arrive":
            fitting = [each for each in TASKS if each.total <= (LIMITS.of(key) or 0)]
            balancer.enqueue(
                "",
                1,
                0,
                flow_key=FlowKey(number % 2, key),
                prefixes=(number % 5,),
                tasks=fitting[number % len(fitting)],
            )
        elif step == "cancel" and balancer.queued:
            balancer.cancel(list(balancer.queue)[number % balancer.queued])
        elif running and step in {"release", "requeue"}:
            ended = running.pop(number % len(running))
            balancer.release_all(ended, 0)
            if step == "requeue":
                balancer.requeue(ended.queued)
        running += balancer.dispatch(0)

        slots = dict.fromkeys(KEYS, 0)
        for reservation in running:
            slots[reservation.queued.flow_key.key] += len(reservation.holds)
        assert all(slots[each] <= (LIMITS.of(each) or 0) for each in KEYS)
        held = [queued for queued in balancer.queue if queued.held]
        assert balancer.held == len(held)
        waiting = [queued for queued in balancer.queue if not queued.held]
        assert balancer.demand == sum(slots.values()) + sum(each.tasks.total for each in waiting)
        for key in KEYS:
            # Held only behind requests of the key that would exceed the limit together.
            first = next((queued for queued in held if queued.flow_key.key == key), None)
            eligible = sum(each.tasks.total for each in waiting if each.flow_key.key == key)
            if first:
                assert slots[key] + eligible + first.tasks.total > (LIMITS.of(key) or 0)
        if balancer.busy_slots < 4 and not balancer.queue.gathering:
            assert all(queued.affinity_replica is not None for queued in waiting)
