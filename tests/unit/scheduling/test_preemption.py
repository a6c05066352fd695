"""Preemptible requests, and which of them yield their slots."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling import (
    PREEMPTIBLE_PRIORITY,
    AffinityLimits,
    Dispatcher,
    FlowKey,
    QueuedRequest,
    QueueFull,
    QueueLimits,
    RunningLimits,
    SlotReservation,
)
from slotkeeper.scheduling.gathering import is_open_to

LOWEST = -1000
LIMITS = QueueLimits(max_queued=3, max_queued_bytes=100)


def dispatcher_with(
    *slots: int,
    limits: QueueLimits | None = None,
    affinity: AffinityLimits | None = None,
    running: RunningLimits | None = None,
) -> Dispatcher[str]:
    dispatcher: Dispatcher[str] = Dispatcher(
        limits or QueueLimits(), affinity, running_limits=running
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


KEYS = ("x", "y", "z")


class AnyMixOfRequests(RuleBasedStateMachine):
    """Preemptible and ordinary requests of all sizes, priorities and keys on changing replicas.

    Slots of aborted requests are released late, in any order, as llama-server does.
    """

    affinity: AffinityLimits | None = None
    running_limits: RunningLimits | None = None
    tasks: Sequence[Tasks] = (ONE_TASK, Tasks(2), Tasks(1, 2), Tasks(4))

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = dispatcher_with(
            limits=QueueLimits(max_queued=12), affinity=self.affinity, running=self.running_limits
        )
        self.queued: dict[str, QueuedRequest[str]] = {}
        self.running: list[SlotReservation[str]] = []
        self.releasing: list[SlotReservation[str]] = []
        self.number = 0

    def dispatch(self) -> None:
        dispatcher = self.dispatcher
        for each in dispatcher.dispatch(0):
            del self.queued[each.queued.request]
            self.running.append(each)
            if each.queued.preemptible:
                self.check_that_no_other_would_take(each)
        for displaced in dispatcher.take_displaced():
            assert displaced.preemptible
            del self.queued[displaced.request]
        victims = dispatcher.victims()
        ordinary = [each for each in self.queued.values() if not each.preemptible]
        assert not victims or ordinary
        for victim in victims:
            assert victim.queued.preemptible
            self.running.remove(victim)
            self.releasing.append(victim)
            dispatcher.abort(victim, 0)

    def check_that_no_other_would_take(self, reservation: SlotReservation[str]) -> None:
        name = reservation.replica.name
        queue = self.dispatcher.queue
        assert not queue.affinity_queues.get(name)
        keeper = queue.gathering.get(name)
        assert keeper is None or keeper.preemptible
        head = queue.head
        assert head is None or head.preemptible

    @rule(
        data=st.data(),
        preemptible=st.booleans(),
        priority=st.integers(-1, 1),
        key=st.sampled_from(KEYS),
        prefix=st.integers(0, 2),
    )
    def arrive(
        self, data: st.DataObject, preemptible: bool, priority: int, key: str, prefix: int
    ) -> None:
        self.number += 1
        name = str(self.number)
        limit = self.running_limits and self.running_limits.of(key)
        fitting = [each for each in self.tasks if limit is None or each.total <= limit]
        before = sum(not each.preemptible for each in self.queued.values())
        try:
            self.queued[name] = self.dispatcher.enqueue(
                name,
                1,
                0,
                prefixes=(prefix,) if prefix else (),
                tasks=data.draw(st.sampled_from(fitting)),
                flow_key=FlowKey(PREEMPTIBLE_PRIORITY if preemptible else priority, key),
            )
        except QueueFull:
            assert preemptible or before >= 12
        self.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), aborted=st.booleans())
    def end(self, data: st.DataObject, aborted: bool) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        if aborted:
            self.dispatcher.abort(reservation, 0)
            self.releasing.append(reservation)
        else:
            self.dispatcher.release_all(reservation, 0)
        self.dispatch()

    @precondition(lambda self: self.releasing)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.releasing))
        held = [each for each in reservation.holds if not each.released]
        self.dispatcher.release(data.draw(st.sampled_from(held)), 0)
        if len(held) == 1:
            self.releasing.remove(reservation)
        self.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail_before_the_first_byte(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        self.dispatcher.drain(reservation.replica.name, 0)
        self.dispatcher.release_all(reservation, 0)
        self.dispatcher.requeue(reservation.queued)
        self.queued[reservation.queued.request] = reservation.queued
        self.dispatch()

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.queued)))
        self.dispatcher.cancel(self.queued.pop(name))
        self.dispatch()

    @rule(name=st.sampled_from("abc"), slots=st.integers(1, 4), adopted=st.integers(0, 1))
    def add_replica(self, name: str, slots: int, adopted: int) -> None:
        new = name not in self.dispatcher.replicas
        self.dispatcher.add(name, slots, 0)
        if new:
            self.dispatcher.adopt(name, adopted, 0)
        self.dispatch()

    @rule(name=st.sampled_from("abc"))
    def drain_replica(self, name: str) -> None:
        self.dispatcher.drain(name, 0)
        self.dispatch()

    @invariant()
    def the_counts_are_exact(self) -> None:
        dispatcher = self.dispatcher
        holds = [hold for each in dispatcher.replicas.values() for hold in each.holds]
        known = [
            hold
            for each in self.running + self.releasing
            for hold in each.holds
            if not hold.released
        ]
        assert set(known) <= set(holds)
        preemptible = [hold for hold in known if hold.preemptible]
        assert dispatcher.preemptible_busy_slots == len(preemptible)
        for replica in dispatcher.replicas.values():
            assert replica.preemptible == sum(hold.preemptible for hold in replica.holds)
        ordinary = [each for each in self.queued.values() if not each.preemptible]
        assert len(dispatcher.queue.preemptible) == len(self.queued) - len(ordinary)
        assert dispatcher.queue.preemptible_bytes == len(self.queued) - len(ordinary)
        waiting = [each for each in ordinary if not each.held]
        assert dispatcher.queue.demand == len(waiting)
        deferred = sum(each.deferred for each in self.running)
        needed = sum(each.tasks.total for each in waiting)
        assert dispatcher.demand == len(holds) - len(preemptible) + deferred + needed
        assert dispatcher.further_tasks == deferred + needed - len(waiting)
        assert set(dispatcher.preemption.running) == {
            each for each in self.running if each.queued.preemptible
        }

    @invariant()
    def no_ordinary_request_waits_for_the_slot_of_a_preemptible_one(self) -> None:
        dispatcher, queue = self.dispatcher, self.dispatcher.queue
        on = {each.replica.name for each in dispatcher.preemption.running if each.replica.ready}
        head = queue.head
        if head and not head.preemptible and head.tasks.total == 1:
            open_ = [each for each in dispatcher.ready_replicas() if is_open_to(queue, head, each)]
            if any(each.name in on for each in open_):
                singles = [
                    each
                    for each in self.queued.values()
                    if not (each.preemptible or each.held or each.affinity_replica)
                    and each.gathering_on is None
                    and each.tasks.total == 1
                ]
                assert len(singles) <= sum(each.soon_free for each in open_)
        for name, waiting in queue.affinity_queues.items():
            assert name not in on or len(waiting) <= dispatcher.replicas[name].soon_free

    @invariant()
    def no_replica_has_more_requests_than_slots(self) -> None:
        for replica in self.dispatcher.replicas.values():
            assert replica.free == (
                max(0, replica.slots - len(replica.holds)) if replica.ready else 0
            )

    @override
    def teardown(self) -> None:
        """All ordinary requests are served before any other is dispatched, and then those."""
        for name in [*self.dispatcher.replicas]:
            self.dispatcher.drain(name, 0)  # its adopted slots are forgotten
        self.dispatcher.add("last", 4, 0)
        self.dispatch()
        while self.running or self.releasing:
            for each in self.releasing:
                self.dispatcher.release_all(each, 0)
            self.releasing = []
            if self.running:
                self.dispatcher.release_all(self.running.pop(0), 0)
            self.dispatcher.queue.expire_affinity(0)
            self.dispatch()
        assert not self.queued
        assert (self.dispatcher.demand, self.dispatcher.preemptible_busy_slots) == (0, 0)


class AnyMixWithAffinity(AnyMixOfRequests):
    affinity = AffinityLimits(max_bypass=3)


class AnyMixWithLimits(AnyMixOfRequests):
    affinity = AffinityLimits(max_bypass=3)
    running_limits = RunningLimits(3, {"x": 1})


class AnyMixOfSingleSlots(AnyMixOfRequests):
    """Beside a rule that is too simple to be wrong."""

    tasks = (ONE_TASK,)

    @override
    def dispatch(self) -> None:
        before = [*self.running]
        super().dispatch()
        ended = [each for each in before if each in self.releasing]
        started = [each for each in before if each.queued.preemptible and each.replica.ready]
        victims = [each for each in ended if each.queued.preemptible and each in started]
        assert victims == started[len(started) - len(victims) :], "not those dispatched last"

    @invariant()
    def as_many_slots_are_released_as_are_needed(self) -> None:
        queued = sum(not each.preemptible for each in self.queued.values())
        ready = [*self.dispatcher.ready_replicas()]
        if any(each.replica.ready for each in self.dispatcher.preemption.running):
            assert queued <= sum(each.soon_free for each in ready)


MACHINES = (AnyMixOfRequests, AnyMixWithAffinity, AnyMixWithLimits, AnyMixOfSingleSlots)
for machine in MACHINES:
    machine.TestCase.settings = settings(stateful_step_count=40, deadline=None)
TestAnyMixOfRequests = AnyMixOfRequests.TestCase
TestAnyMixWithAffinity = AnyMixWithAffinity.TestCase
TestAnyMixWithLimits = AnyMixWithLimits.TestCase
TestAnyMixOfSingleSlots = AnyMixOfSingleSlots.TestCase
