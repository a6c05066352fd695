"""Preemption beside models, on any mix of preemptible and ordinary requests."""

from collections.abc import Sequence

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

KEYS = ("x", "y", "z")


class AnyMixOfRequests(RuleBasedStateMachine):
    """Preemptible and ordinary requests of all sizes, priorities and keys on changing replicas.

    Slots of aborted requests are released late, in any order, as llama-server does.
    """

    affinity: AffinityLimits | None = None
    running_limits: RunningLimits | None = None
    reserved_slots = 0
    tasks: Sequence[Tasks] = (ONE_TASK, Tasks(2), Tasks(1, 2), Tasks(4))

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher: Dispatcher[str] = Dispatcher(
            QueueLimits(max_queued=12),
            self.affinity,
            running_limits=self.running_limits,
            reserved_slots=self.reserved_slots,
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
        others = any(not each.queued.preemptible for each in self.running)
        # Adopted slots are of requests that are not known here.
        adopted = any(each.busy_ordinary for each in dispatcher.replicas.values())
        assert not victims or ordinary or (self.reserved_slots and (others or adopted))
        for victim in victims:
            assert victim.queued.preemptible
            assert victim.queued.abortable
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
        abortable=st.sampled_from([True, True, False]),
        priority=st.integers(-1, 1),
        key=st.sampled_from(KEYS),
        prefix=st.integers(0, 2),
    )
    def arrive(
        self,
        data: st.DataObject,
        preemptible: bool,
        abortable: bool,
        priority: int,
        key: str,
        prefix: int,
    ) -> None:
        self.number += 1
        name = str(self.number)
        limit = self.running_limits.of(key) if self.running_limits else None
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
                abortable=abortable,
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

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin_response(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running)).began = True

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
        replica = self.dispatcher.replicas.get(name)
        self.dispatcher.add(name, max(slots, replica.busy) if replica else slots, 0)
        if not replica:
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
            each for each in self.running if each.queued.preemptible and each.queued.abortable
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
                assert len(singles) <= sum(max(0, each.soon_free) for each in open_)
        for name, waiting in queue.affinity_queues.items():
            assert name not in on or len(waiting) <= max(0, dispatcher.replicas[name].soon_free)

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


class AnyMixWithReservedSlots(AnyMixOfRequests):
    affinity = AffinityLimits(max_bypass=3)
    reserved_slots = 1

    @invariant()
    def a_slot_is_free_for_the_next_ordinary_request(self) -> None:
        dispatcher = self.dispatcher
        yielding = [each for each in dispatcher.preemption.running if each.replica.ready]
        if yielding and dispatcher.busy_slots > dispatcher.preemptible_busy_slots:
            free = sum(max(0, each.soon_free) for each in dispatcher.ready_replicas())
            affine = sum(map(len, dispatcher.queue.affinity_queues.values()))
            assert free - affine >= 1 or len(dispatcher.queue.gathering)


class AnyMixOfSingleSlots(AnyMixOfRequests):
    """Beside a rule that is too simple to be wrong."""

    tasks = (ONE_TASK,)

    @override
    def dispatch(self) -> None:
        before = [*self.running]
        super().dispatch()
        ended = [each for each in before if each in self.releasing]
        yielding = [each for each in before if each.yields]
        started = [each for each in yielding if each.replica.ready]
        victims = [each for each in ended if each.queued.preemptible and each in started]
        began = [each for each in started if each.began]
        order = [each for each in started if not each.began] + began
        assert set(victims) == set(order[len(order) - len(victims) :]), "not those dispatched last"

    @invariant()
    def as_many_slots_are_released_as_are_needed(self) -> None:
        queued = sum(not each.preemptible for each in self.queued.values())
        ready = [*self.dispatcher.ready_replicas()]
        if any(each.replica.ready for each in self.dispatcher.preemption.running):
            assert queued <= sum(max(0, each.soon_free) for each in ready)


MACHINES = (
    AnyMixOfRequests,
    AnyMixWithAffinity,
    AnyMixWithLimits,
    AnyMixWithReservedSlots,
    AnyMixOfSingleSlots,
)
for machine in MACHINES:
    machine.TestCase.settings = settings(stateful_step_count=40, deadline=None)
TestAnyMixOfRequests = AnyMixOfRequests.TestCase
TestAnyMixWithAffinity = AnyMixWithAffinity.TestCase
TestAnyMixWithLimits = AnyMixWithLimits.TestCase
TestAnyMixWithReservedSlots = AnyMixWithReservedSlots.TestCase
TestAnyMixOfSingleSlots = AnyMixOfSingleSlots.TestCase
