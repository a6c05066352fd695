"""Preemptible requests, and which of them yield their slots."""

from collections.abc import Iterable

import pytest

from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling import (
    PREEMPTIBLE_PRIORITY,
    AffinityLimits,
    Dispatcher,
    FlowKey,
    QueueFull,
    QueueLimits,
    RunningLimits,
    SlotReservation,
)

LOWEST = -1000
LIMITS = QueueLimits(max_queued=3, max_queued_bytes=100)


def dispatcher_with(
    *slots: int,
    limits: QueueLimits | None = None,
    affinity: AffinityLimits | None = None,
    running: RunningLimits | None = None,
    reserved: int = 0,
) -> Dispatcher[str]:
    dispatcher: Dispatcher[str] = Dispatcher(
        limits or QueueLimits(), affinity, running_limits=running, reserved_slots=reserved
    )
    for number, count in enumerate(slots):
        dispatcher.add(f"r{number}", count, now=0)
    return dispatcher


def enqueue(
    dispatcher: Dispatcher[str],
    *requests: str,
    key: str = "",
    priority: int = 0,
    tasks: Tasks = ONE_TASK,
    prefix: int = 0,
    size: int = 1,
) -> None:
    """Enqueue these requests; those named p… are preemptible."""
    for name in requests:
        dispatcher.enqueue(
            name,
            size,
            0,
            prefixes=(prefix,) if prefix else (),
            tasks=tasks,
            flow_key=FlowKey(PREEMPTIBLE_PRIORITY if name.startswith("p") else priority, key),
        )


def dispatch(dispatcher: Dispatcher[str]) -> dict[str, SlotReservation[str]]:
    return {each.queued.request: each for each in dispatcher.dispatch(0)}


def names(reservations: Iterable[SlotReservation[str]]) -> list[str]:
    return [each.queued.request for each in reservations]


def preempt(dispatcher: Dispatcher[str]) -> list[str]:
    """Abort the victims; return their names."""
    victims = dispatcher.victims()
    for victim in victims:
        dispatcher.abort(victim, 0)
    assert not dispatcher.victims(), "as many slots are released as are needed"
    return names(victims)


def test_a_preemptible_request_is_dispatched_after_all_others() -> None:
    dispatcher = dispatcher_with(1)
    enqueue(dispatcher, "p1")
    enqueue(dispatcher, "a")
    enqueue(dispatcher, "b", priority=LOWEST)

    order = []
    for _ in range(3):
        [(name, reservation)] = dispatch(dispatcher).items()
        order.append(name)
        dispatcher.release(reservation, 1)
    assert order == ["a", "b", "p1"]


def test_a_request_without_a_free_slot_preempts_the_one_that_was_dispatched_last() -> None:
    dispatcher = dispatcher_with(2, 1)
    enqueue(dispatcher, "p1", "p2", "p3")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "a")
    assert not dispatch(dispatcher)

    assert preempt(dispatcher) == ["p3"]
    assert not dispatch(dispatcher), "llama-server has not released the slot"
    dispatcher.release(started["p3"], 1)
    assert dispatch(dispatcher)["a"].replica is started["p3"].replica
    assert not preempt(dispatcher)


def test_nothing_is_preempted_for_a_free_slot_or_for_another_preemptible_request() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "p1", "a")
    assert dispatch(dispatcher).keys() == {"p1", "a"}
    enqueue(dispatcher, "p2")
    dispatch(dispatcher)
    assert not preempt(dispatcher)


def test_a_request_that_llama_server_would_process_to_its_end_is_not_preempted() -> None:
    dispatcher = dispatcher_with(2, 2)
    enqueue(dispatcher, "p1", "p2")
    for name in ("p3", "p4"):
        dispatcher.enqueue(name, 1, 0, flow_key=FlowKey(PREEMPTIBLE_PRIORITY), abortable=False)
    started = dispatch(dispatcher)
    dispatcher.drain(started["p2"].replica.name, 0)
    enqueue(dispatcher, "a", "b")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"]


def test_slots_are_gathered_where_requests_yield_them() -> None:
    dispatcher = dispatcher_with(2, 2)
    for name in ("p1", "p2", "p3", "p4"):
        abortable = name in {"p2", "p4"}
        dispatcher.enqueue(name, 1, 0, flow_key=FlowKey(PREEMPTIBLE_PRIORITY), abortable=abortable)
    started = dispatch(dispatcher)
    enqueue(dispatcher, "a", tasks=Tasks(2))
    dispatch(dispatcher)
    assert started["p2"].replica is started["p4"].replica
    assert preempt(dispatcher) == ["p4", "p2"]


def test_a_request_whose_response_has_begun_is_preempted_before_others() -> None:
    dispatcher = dispatcher_with(2, 2)
    enqueue(dispatcher, "p1", "p2", "p3", "p4")
    started = dispatch(dispatcher)
    started["p1"].began = started["p2"].began = True
    enqueue(dispatcher, "a", "b", "c")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p2", "p1", "p4"]


def test_each_queued_request_preempts_one_and_no_more() -> None:
    dispatcher = dispatcher_with(4)
    enqueue(dispatcher, "p1", "p2", "p3", "a")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "b", "c")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p3", "p2"]
    enqueue(dispatcher, "d", "e")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"], "the second one has nothing to preempt"
    dispatcher.release(started["p1"], 1)
    assert dispatch(dispatcher).keys() == {"b"}


def test_a_slot_that_an_ordinary_request_releases_is_used_before_another_is_preempted() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a", "p1")
    started = dispatch(dispatcher)
    dispatcher.abort(started["a"], 1)
    enqueue(dispatcher, "b")
    dispatch(dispatcher)
    assert not preempt(dispatcher)


def test_nothing_is_preempted_in_vain_on_a_replica_that_has_fewer_slots_than_before() -> None:
    dispatcher = dispatcher_with(3)
    enqueue(dispatcher, "a", "p1", "p2")
    started = dispatch(dispatcher)
    dispatcher.add("r0", 1, 1)
    enqueue(dispatcher, "b")
    dispatch(dispatcher)
    assert not preempt(dispatcher), "a needs the only slot"
    dispatcher.release(started["a"], 1)
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p2", "p1"]


def test_a_slot_of_an_unknown_request_does_not_count_as_being_released() -> None:
    dispatcher = dispatcher_with(2)
    dispatcher.adopt("r0", 1, 0)
    enqueue(dispatcher, "p1")
    dispatch(dispatcher)
    enqueue(dispatcher, "a")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"]


def test_a_replica_that_gets_no_requests_gives_no_slot() -> None:
    dispatcher = dispatcher_with(1, 1)
    enqueue(dispatcher, "p1", "p2")
    started = dispatch(dispatcher)
    dispatcher.drain(started["p2"].replica.name, 1)
    enqueue(dispatcher, "a")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"]


def test_a_request_for_several_slots_preempts_as_many_on_one_replica() -> None:
    dispatcher = dispatcher_with(3, 3)
    enqueue(dispatcher, "a", "b", "p1", "p2", "p3", "p4")
    started = dispatch(dispatcher)
    where = {name: each.replica.name for name, each in started.items()}
    enqueue(dispatcher, "c", tasks=Tasks(2))
    dispatch(dispatcher)
    victims = preempt(dispatcher)
    assert len(victims) == 2
    assert len({where[each] for each in victims}) == 1
    for each in victims:
        dispatcher.release(started[each], 1)
    assert len(dispatch(dispatcher)["c"].holds) == 2


def test_nothing_is_preempted_for_a_request_that_has_too_few_slots_still() -> None:
    dispatcher = dispatcher_with(3)
    enqueue(dispatcher, "a", "p1", "p2")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "c", tasks=Tasks(3))
    dispatch(dispatcher)
    assert not preempt(dispatcher), "a runs on one of the three"
    dispatcher.release(started["a"], 1)
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p2", "p1"]


def test_a_request_for_several_slots_gathers_them_where_preemptible_ones_run() -> None:
    dispatcher = dispatcher_with(2, 2)
    enqueue(dispatcher, "a", "p1", "b", "p2")
    started = dispatch(dispatcher)
    dispatcher.release(started["b"], 1)
    enqueue(dispatcher, "p3")
    dispatch(dispatcher)
    enqueue(dispatcher, "c", tasks=Tasks(2))
    dispatch(dispatcher)
    assert set(preempt(dispatcher)) == {"p3", "p2"}, "a runs on the other replica"


def test_a_preemptible_request_yields_all_its_slots() -> None:
    dispatcher = dispatcher_with(3)
    enqueue(dispatcher, "p1", tasks=Tasks(2))
    started = dispatch(dispatcher)
    enqueue(dispatcher, "p2")
    dispatch(dispatcher)
    enqueue(dispatcher, "a", "b", "c")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p2", "p1"]
    dispatcher.release_all(started["p1"], 1)
    assert dispatch(dispatcher).keys() == {"a", "b"}


def test_a_preemptible_request_for_several_slots_keeps_none_from_others() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a", "b")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "p1", tasks=Tasks(2))
    dispatch(dispatcher)
    dispatcher.release(started["a"], 1)
    assert not dispatch(dispatcher), "it waits for the second slot"
    enqueue(dispatcher, "c")
    assert dispatch(dispatcher).keys() == {"c"}


def test_a_prefix_cache_hit_preempts_on_the_replica_that_has_it() -> None:
    dispatcher = dispatcher_with(1, 1, 1, affinity=AffinityLimits())
    enqueue(dispatcher, "a", prefix=7)
    started = dispatch(dispatcher)
    dispatcher.release(started["a"], 1)
    enqueue(dispatcher, "p1", prefix=7)
    first = dispatch(dispatcher)["p1"]
    assert first.replica is started["a"].replica, "preemptible requests use the cache too"
    enqueue(dispatcher, "p2", "p3")
    dispatch(dispatcher)
    enqueue(dispatcher, "b", prefix=7)
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"]


def test_a_preemptible_request_waits_for_no_prefix_cache_hit() -> None:
    dispatcher = dispatcher_with(1, 1, 1, affinity=AffinityLimits())
    enqueue(dispatcher, "a", prefix=7)
    dispatch(dispatcher)
    enqueue(dispatcher, "p1", prefix=7)
    assert dispatch(dispatcher).keys() == {"p1"}


def test_queued_preemptible_requests_keep_no_other_from_its_prefix_cache_hit() -> None:
    dispatcher = dispatcher_with(1, 1, 1, affinity=AffinityLimits(lookahead=2))
    enqueue(dispatcher, "a", prefix=7)
    enqueue(dispatcher, "b", "c")
    started = dispatch(dispatcher)
    enqueue(dispatcher, *(f"p{number}" for number in range(5)))
    dispatch(dispatcher)
    enqueue(dispatcher, "d", prefix=7)
    assert dispatcher.queue.affinity_queues.keys() == {started["a"].replica.name}


def test_a_key_at_its_limit_preempts_its_own_request() -> None:
    dispatcher = dispatcher_with(4, running=RunningLimits(2))
    enqueue(dispatcher, "p1", "p2", key="ann")
    enqueue(dispatcher, "p3", key="ben")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "a", key="ann")
    assert dispatcher.held == 1
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p2"]
    dispatcher.release(started["p2"], 1)
    assert dispatch(dispatcher).keys() == {"a"}


def test_a_key_at_its_limit_by_ordinary_requests_preempts_nothing() -> None:
    dispatcher = dispatcher_with(4, running=RunningLimits(2))
    enqueue(dispatcher, "a", "b", key="ann")
    enqueue(dispatcher, "p1", "p2", key="ben")
    dispatch(dispatcher)
    enqueue(dispatcher, "c", "p3", key="ann")
    dispatch(dispatcher)
    assert (preempt(dispatcher), dispatcher.held) == ([], 2)


def test_a_key_preempts_nothing_while_that_would_not_be_enough() -> None:
    dispatcher = dispatcher_with(4, running=RunningLimits(2))
    enqueue(dispatcher, "a", "p1", key="ann")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "b", key="ann", tasks=Tasks(2))
    dispatch(dispatcher)
    assert not preempt(dispatcher)
    dispatcher.release(started["a"], 1)
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"]


def test_a_full_queue_displaces_the_last_preemptible_requests() -> None:
    dispatcher = dispatcher_with(1, limits=LIMITS)
    enqueue(dispatcher, "a")
    dispatch(dispatcher)
    enqueue(dispatcher, "p1", "p2", "p3")
    with pytest.raises(QueueFull, match="3 requests"):
        enqueue(dispatcher, "p4")
    enqueue(dispatcher, "b", "c")
    assert [each.request for each in dispatcher.take_displaced()] == ["p3", "p2"]
    assert [each.request for each in dispatcher.queue] == ["b", "c", "p1"]
    assert not dispatcher.take_displaced()


def test_the_size_of_preemptible_requests_displaces_them_too() -> None:
    dispatcher = dispatcher_with(1, limits=LIMITS)
    enqueue(dispatcher, "a")
    dispatch(dispatcher)
    enqueue(dispatcher, "p1", "p2", size=50)
    with pytest.raises(QueueFull, match="100 bytes"):
        enqueue(dispatcher, "p3")
    enqueue(dispatcher, "b", size=60)
    assert [each.request for each in dispatcher.take_displaced()] == ["p2", "p1"]
    with pytest.raises(QueueFull, match="60 bytes"):
        enqueue(dispatcher, "c", size=60)


def test_a_full_queue_of_one_key_keeps_no_other_key_from_a_preemptible_slot() -> None:
    dispatcher = dispatcher_with(2, limits=LIMITS, running=RunningLimits(1))
    enqueue(dispatcher, "a", key="ann")
    enqueue(dispatcher, "p1", key="ben")
    dispatch(dispatcher)
    enqueue(dispatcher, "b", "c", "d", key="ann")
    with pytest.raises(QueueFull):
        enqueue(dispatcher, "p2", key="cid")
    enqueue(dispatcher, "e", key="cid")
    dispatch(dispatcher)
    assert preempt(dispatcher) == ["p1"]


def test_preemptible_requests_are_no_demand() -> None:
    dispatcher = dispatcher_with(2, running=RunningLimits(4, {"ben": 3}))
    enqueue(dispatcher, "p1", key="ann")
    dispatch(dispatcher)
    enqueue(dispatcher, "p2", key="ann", tasks=Tasks(3))
    enqueue(dispatcher, "p3", key="ann", tasks=Tasks(2))
    dispatch(dispatcher)
    queue = dispatcher.queue

    assert (dispatcher.busy_slots, dispatcher.preemptible_busy_slots) == (1, 1)
    assert (dispatcher.queued, dispatcher.held, queue.demand) == (2, 1, 0)
    assert (dispatcher.demand, dispatcher.further_tasks) == (0, 0)
    assert (dispatcher.busy_by_replica(), queue.oldest_demand) == ({}, None)

    enqueue(dispatcher, "a", key="ben", tasks=Tasks(2))
    enqueue(dispatcher, "b", key="ben", tasks=Tasks(3))
    assert (queue.demand, dispatcher.demand, dispatcher.further_tasks) == (1, 2, 1)
    assert queue.oldest_demand


def test_preemptible_requests_count_in_no_rate() -> None:
    dispatcher = dispatcher_with(1)
    for number in range(8):
        enqueue(dispatcher, "p1")
        dispatcher.release(dispatch(dispatcher)["p1"], number)
    assert dispatcher.service_times.mean_service_seconds(9) is None
    assert dispatcher.arrivals.rate(9) == 0


def test_tasks_queued_inside_of_a_replica_for_a_preemptible_request_are_no_demand() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "p1", tasks=Tasks(8))
    started = dispatch(dispatcher)
    assert (dispatcher.demand, dispatcher.further_tasks) == (0, 0)
    dispatcher.release_all(started["p1"], 1)
    assert (dispatcher.preemptible_busy_slots, dispatcher.busy_slots) == (0, 0)


def test_preemptible_requests_leave_a_slot_free_for_the_next_ordinary_one() -> None:
    dispatcher = dispatcher_with(2, 2, reserved=1)
    enqueue(dispatcher, "p1", "p2", "p3", "p4")

    assert [*dispatch(dispatcher)] == ["p1", "p2", "p3"]
    assert not preempt(dispatcher)
    enqueue(dispatcher, "a")
    [(name, first)] = dispatch(dispatcher).items()
    assert name == "a"
    assert preempt(dispatcher) == ["p3"]
    enqueue(dispatcher, "b")
    assert not dispatch(dispatcher)
    assert preempt(dispatcher) == ["p2"]
    dispatcher.release(first, 1)
    assert [*dispatch(dispatcher)] == ["b"]


def test_where_nothing_runs_a_preemptible_request_uses_all_slots() -> None:
    single = dispatcher_with(1, reserved=1)
    enqueue(single, "p1")
    several = dispatcher_with(2, reserved=1)
    enqueue(several, "p1", tasks=Tasks(2))

    assert [*dispatch(single)] == [*dispatch(several)] == ["p1"]
    for dispatcher in (single, several):
        assert not preempt(dispatcher)
        enqueue(dispatcher, "a")
        assert not dispatch(dispatcher)
        assert preempt(dispatcher) == ["p1"]


def test_a_preemptible_request_waits_where_an_ordinary_one_leaves_no_other_slot() -> None:
    dispatcher = dispatcher_with(2, reserved=1)
    enqueue(dispatcher, "a", "p1")

    [(name, ordinary)] = dispatch(dispatcher).items()
    assert name == "a"
    dispatcher.release(ordinary, 1)
    assert [*dispatch(dispatcher)] == ["p1"]
