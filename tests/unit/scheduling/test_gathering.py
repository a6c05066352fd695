"""Requests that need several slots."""

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling import (
    AffinityLimits,
    Dispatcher,
    FlowKey,
    QueuedRequest,
    QueueFull,
    QueueLimits,
    SlotProbe,
    SlotReservation,
)

TWO = Tasks(1, 2)


def dispatcher_with(
    *slots: int, limits: QueueLimits | None = None, affinity: AffinityLimits | None = None
) -> Dispatcher[str]:
    dispatcher: Dispatcher[str] = Dispatcher(limits or QueueLimits(), affinity)
    for number, count in enumerate(slots):
        dispatcher.add(f"r{number}", count, now=0)
    return dispatcher


def enqueue(
    dispatcher: Dispatcher[str], name: str, tasks: Tasks = ONE_TASK, priority: int = 0
) -> QueuedRequest[str]:
    return dispatcher.enqueue(name, 1, 0, tasks=tasks, flow_key=FlowKey(priority))


def dispatch(dispatcher: Dispatcher[str]) -> dict[str, SlotReservation[str]]:
    return {each.queued.request: each for each in dispatcher.dispatch(0)}


def running(reservations: Sequence[SlotReservation[str]]) -> dict[str, str]:
    return {each.queued.request: each.replica.name for each in reservations}


def test_a_request_takes_all_its_slots_on_one_replica() -> None:
    dispatcher = dispatcher_with(1, 4)
    enqueue(dispatcher, "a", Tasks(3))
    started = dispatch(dispatcher)

    assert started["a"].replica.name == "r1"
    assert dispatcher.busy_by_replica() == {"r1": 3}
    dispatcher.release_all(started["a"], 1)
    assert dispatcher.busy_slots == 0


def test_a_request_with_more_tasks_than_slots_takes_all_of_them_and_the_rest_is_demand() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a", Tasks(8))
    assert (dispatcher.queued, dispatcher.further_tasks, dispatcher.demand) == (1, 7, 8)
    started = dispatch(dispatcher)

    assert dispatcher.busy_slots == 2
    assert (dispatcher.further_tasks, dispatcher.demand) == (6, 8)
    dispatcher.release_all(started["a"], 1)
    assert (dispatcher.busy_slots, dispatcher.further_tasks, dispatcher.demand) == (0, 0, 0)


def test_an_aborted_request_frees_its_slots_one_by_one() -> None:
    dispatcher = dispatcher_with(3)
    enqueue(dispatcher, "a", Tasks(5))
    reservation = dispatch(dispatcher)["a"]
    reservation.set_visible(0)
    dispatcher.abort(reservation, 1)
    assert dispatcher.further_tasks == 0

    released = SlotProbe(dispatcher.replicas["r0"], 2).released(1)
    for hold in released:
        dispatcher.release(hold, 2)

    assert len(released) == 2
    assert dispatcher.busy_slots == 1
    dispatcher.release_all(reservation, 3)
    assert dispatcher.busy_slots == 0


def test_a_running_request_may_have_freed_slots_and_releases_no_other_too_early() -> None:
    dispatcher = dispatcher_with(3)
    enqueue(dispatcher, "a", TWO)
    enqueue(dispatcher, "b")
    started = dispatch(dispatcher)
    for reservation in started.values():
        reservation.set_visible(0)
    dispatcher.abort(started["b"], 1)
    probe = SlotProbe(dispatcher.replicas["r0"], 2)

    # One slot of a's, and b's: or both of a's.
    assert probe.released(2) == []
    assert probe.released(1) == [started["b"]]
    assert probe.foreign(3) == 0


def test_a_request_gathers_slots_and_none_behind_it_takes_them() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a")
    enqueue(dispatcher, "b")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "double", TWO)
    for number in range(9):
        enqueue(dispatcher, f"single-{number}")
    dispatcher.release_all(started["a"], 1)
    assert dispatch(dispatcher) == {}
    dispatcher.release_all(started["b"], 2)

    assert list(dispatch(dispatcher)) == ["double"]


def test_requests_behind_a_gathering_one_use_the_other_replicas() -> None:
    dispatcher = dispatcher_with(2, 2)
    for name in "abcd":
        enqueue(dispatcher, name)
    started = dispatch(dispatcher)
    queued = enqueue(dispatcher, "double", TWO)
    enqueue(dispatcher, "single")
    assert dispatch(dispatcher) == {}
    kept = queued.gathering_on
    other = next(each for each in started.values() if each.replica.name != kept)
    dispatcher.release_all(other, 1)

    assert running(dispatcher.dispatch(1)) == {"single": other.replica.name}
    assert queued.bypassed == 0
    assert dispatcher.queue.position(queued) == 1
    for each in started.values():
        if each.replica.name == kept:
            dispatcher.release_all(each, 2)
    assert running(dispatcher.dispatch(2)) == {"double": kept}


def test_a_gathering_request_takes_another_replica_that_has_enough_slots_first() -> None:
    dispatcher = dispatcher_with(2, 2)
    for name in "abcd":
        enqueue(dispatcher, name)
    started = dispatch(dispatcher)
    queued = enqueue(dispatcher, "double", TWO)
    dispatch(dispatcher)
    others = [each for each in started.values() if each.replica.name != queued.gathering_on]
    for each in others:
        dispatcher.release_all(each, 1)

    assert running(dispatcher.dispatch(1)) == {"double": others[0].replica.name}
    assert not dispatcher.queue.gathering


def test_when_all_replicas_are_kept_nothing_behind_is_dispatched() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a")
    enqueue(dispatcher, "b")
    started = dispatch(dispatcher)
    for name in ("first", "second"):
        enqueue(dispatcher, name, TWO)
    enqueue(dispatcher, "single")
    dispatcher.release_all(started["a"], 1)
    assert dispatch(dispatcher) == {}
    dispatcher.release_all(started["b"], 1)
    first = dispatch(dispatcher)
    assert list(first) == ["first"]
    dispatcher.release_all(first["first"], 2)

    assert list(dispatch(dispatcher)) == ["second"]


def test_a_higher_priority_takes_slots_that_are_kept() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a")
    enqueue(dispatcher, "b")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "double", TWO)
    enqueue(dispatcher, "urgent", priority=1)
    dispatcher.release_all(started["a"], 1)

    assert list(dispatch(dispatcher)) == ["urgent"]


def test_a_higher_priority_comes_first_also_when_all_kept_slots_are_free() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a")
    enqueue(dispatcher, "b")
    started = dispatch(dispatcher)
    enqueue(dispatcher, "double", TWO)
    dispatch(dispatcher)
    enqueue(dispatcher, "urgent", priority=1)
    for each in started.values():
        dispatcher.release_all(each, 1)

    assert list(dispatch(dispatcher)) == ["urgent"]


def test_a_replica_that_is_kept_has_no_affinity_queue() -> None:
    dispatcher = dispatcher_with(2, 2, affinity=AffinityLimits())
    dispatcher.enqueue("first", 1, 0, prefixes=(1,))
    for name in "bcd":
        enqueue(dispatcher, name)
    dispatch(dispatcher)
    dispatcher.enqueue("again", 1, 0, prefixes=(1,))
    assert list(dispatcher.queue.affinity_queues) == ["r0"]
    double = enqueue(dispatcher, "double", TWO, priority=1)
    dispatch(dispatcher)
    assert double.gathering_on == "r0"

    assert not dispatcher.queue.affinity_queues
    dispatcher.enqueue("later", 1, 0, prefixes=(1,))
    assert not dispatcher.queue.affinity_queues


def test_affinity_queues_of_other_replicas_are_served_while_a_request_gathers() -> None:
    dispatcher = dispatcher_with(2, 2, affinity=AffinityLimits())
    dispatcher.enqueue("first", 1, 0, prefixes=(1,))
    for name in "bcd":
        enqueue(dispatcher, name)
    started = dispatch(dispatcher)
    dispatcher.enqueue("again", 1, 0, prefixes=(1,))
    assert list(dispatcher.queue.affinity_queues) == ["r0"]
    beside = next(each for each in started.values() if each.replica.name == "r1")
    dispatcher.release_all(beside, 1)
    double = enqueue(dispatcher, "double", TWO)
    assert not dispatch(dispatcher)
    assert double.gathering_on == "r1"

    dispatcher.release_all(started["first"], 1)
    assert running(list(dispatch(dispatcher).values())) == {"again": "r0"}


@pytest.mark.parametrize("leaves", ["drain", "remove"])
def test_a_request_gathers_elsewhere_when_its_replica_leaves(leaves: str) -> None:
    dispatcher = dispatcher_with(2, 2)
    for name in "abcd":
        enqueue(dispatcher, name)
    started = dispatch(dispatcher)
    queued = enqueue(dispatcher, "double", TWO)
    dispatch(dispatcher)
    before = queued.gathering_on
    assert before
    getattr(dispatcher, leaves)(before, 1)
    dispatch(dispatcher)

    assert queued.gathering_on not in {None, before}
    for each in started.values():
        if each.replica.name == queued.gathering_on:
            dispatcher.release_all(each, 2)
    assert list(dispatch(dispatcher)) == ["double"]


def test_a_gathering_request_that_leaves_frees_what_was_kept() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a")
    dispatch(dispatcher)
    double = enqueue(dispatcher, "double", TWO)
    enqueue(dispatcher, "single")
    assert dispatch(dispatcher) == {}
    assert dispatcher.cancel(double)

    assert list(dispatch(dispatcher)) == ["single"]
    assert dispatcher.demand == 2


def test_more_completions_than_slots_take_one_slot_since_llama_server_rejects_them() -> None:
    dispatcher = dispatcher_with(2)
    enqueue(dispatcher, "a", Tasks(1, 3))
    dispatch(dispatcher)

    assert (dispatcher.busy_slots, dispatcher.further_tasks) == (1, 0)


def test_with_a_full_queue_a_request_is_accepted_if_all_its_slots_are_free() -> None:
    dispatcher = dispatcher_with(2, limits=QueueLimits(max_queued=0))
    enqueue(dispatcher, "a")
    dispatch(dispatcher)
    with pytest.raises(QueueFull):
        enqueue(dispatcher, "double", TWO)
    enqueue(dispatcher, "single")

    assert list(dispatch(dispatcher)) == ["single"]


def test_a_prefix_cache_hit_needs_all_slots_of_its_replica() -> None:
    dispatcher = dispatcher_with(2, 3, affinity=AffinityLimits())
    dispatcher.enqueue("first", 1, 0, prefixes=(1,), tasks=Tasks(2))
    started = dispatch(dispatcher)
    assert started["first"].replica.name == "r1"
    dispatcher.enqueue("again", 1, 0, prefixes=(1,), tasks=Tasks(2))

    # r1 has the prefix and one free slot.
    assert running(dispatcher.dispatch(0)) == {"again": "r0"}


class AnyNumberOfSlots(RuleBasedStateMachine):
    """Requests of all sizes, priorities and keys on replicas of all sizes."""

    affinity: AffinityLimits | None = None

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = dispatcher_with(limits=QueueLimits(max_queued=20), affinity=self.affinity)
        self.queued: dict[str, QueuedRequest[str]] = {}
        self.running: list[SlotReservation[str]] = []
        self.number = 0

    def dispatch(self) -> None:
        kept = dict(self.dispatcher.queue.gathering)
        for each in self.dispatcher.dispatch(0):
            del self.queued[each.queued.request]
            self.running.append(each)
            assert len(each.holds) == each.queued.tasks.slots_on(each.replica.slots)
            keeper = kept.get(each.replica.name)
            if keeper and keeper.request in self.queued:
                assert each.queued.rank < keeper.rank, "a kept slot went to a request behind"

    @rule(
        inputs=st.integers(1, 4),
        completions=st.integers(1, 3),
        priority=st.integers(0, 1),
        key=st.sampled_from("xy"),
        prefix=st.integers(0, 2),
    )
    def arrive(self, inputs: int, completions: int, priority: int, key: str, prefix: int) -> None:
        self.number += 1
        name = str(self.number)
        try:
            self.queued[name] = self.dispatcher.enqueue(
                name,
                1,
                0,
                prefixes=(prefix,) if prefix else (),
                tasks=Tasks(inputs, completions),
                flow_key=FlowKey(priority, key),
            )
        except QueueFull:
            return
        self.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), aborted=st.booleans())
    def end(self, data: st.DataObject, aborted: bool) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        if aborted:
            self.dispatcher.abort(reservation, 0)
            self.dispatch()
        self.dispatcher.release_all(reservation, 0)
        self.dispatch()

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.queued)))
        self.dispatcher.cancel(self.queued.pop(name))
        self.dispatch()

    @rule(name=st.sampled_from("abc"), slots=st.integers(1, 4))
    def add_replica(self, name: str, slots: int) -> None:
        self.dispatcher.add(name, slots, 0)
        self.dispatch()

    @rule(name=st.sampled_from("abc"))
    def drain_replica(self, name: str) -> None:
        self.dispatcher.drain(name, 0)
        self.dispatch()

    @invariant()
    def the_counts_are_exact(self) -> None:
        dispatcher = self.dispatcher
        held = [hold for each in self.running for hold in each.holds]
        assert dispatcher.busy_slots == len(held)
        assert {hold for each in dispatcher.replicas.values() for hold in each.holds} == set(held)
        assert dispatcher.queued == len(self.queued)
        deferred = sum(each.deferred for each in self.running)
        needed = sum(each.tasks.total for each in self.queued.values())
        assert dispatcher.further_tasks == deferred + needed - len(self.queued)
        assert dispatcher.demand == len(held) + deferred + needed
        positions = sorted(map(dispatcher.queue.position, self.queued.values()))
        assert positions == list(range(1, len(self.queued) + 1))

    @invariant()
    def the_first_request_is_queued_only_while_no_replica_has_its_slots(self) -> None:
        first = min(self.queued.values(), key=lambda each: each.rank, default=None)
        if first and first.affinity_replica is None:
            for replica in self.dispatcher.ready_replicas():
                assert replica.free < first.tasks.slots_on(replica.slots)

    @invariant()
    def a_request_of_one_slot_is_queued_only_while_all_slots_are_taken_or_kept(self) -> None:
        queue = self.dispatcher.queue
        head = queue.head
        if head and head.tasks.total == 1:
            for replica in self.dispatcher.ready_replicas():
                keeper = queue.gathering.get(replica.name)
                assert not replica.free or (keeper and keeper.rank < head.rank)

    @invariant()
    def no_affinity_queue_waits_for_a_free_slot(self) -> None:
        queue = self.dispatcher.queue
        for name, waiting in queue.affinity_queues.items():
            first = waiting.head
            limit = queue.at_bypass_limit
            if first and not (limit and limit.rank < first.rank) and not queue.head:
                assert not self.dispatcher.replicas[name].free

    @override
    def teardown(self) -> None:
        """Without new requests all are served, in whatever state they are."""
        self.dispatcher.add("last", 4, 0)
        self.dispatcher.queue.expire_affinity(0)
        self.dispatch()
        while self.running:
            self.dispatcher.release_all(self.running.pop(0), 0)
            self.dispatcher.queue.expire_affinity(0)
            self.dispatch()
        assert not self.queued
        assert self.dispatcher.demand == 0


class AnyNumberOfSlotsWithAffinity(AnyNumberOfSlots):
    affinity = AffinityLimits(max_bypass=3)

    @invariant()
    def none_is_bypassed_too_often(self) -> None:
        assert all(each.bypassed <= 3 for each in self.queued.values())


for machine in (AnyNumberOfSlots, AnyNumberOfSlotsWithAffinity):
    machine.TestCase.settings = settings(stateful_step_count=40)
TestAnyNumberOfSlots = AnyNumberOfSlots.TestCase
TestAnyNumberOfSlotsWithAffinity = AnyNumberOfSlotsWithAffinity.TestCase
