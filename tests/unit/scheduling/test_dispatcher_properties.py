from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling import Dispatcher, QueuedRequest, QueueFull, QueueLimits, SlotReservation

NAMES = st.sampled_from(["a", "b", "c"])
MAX_QUEUED = 4
MAX_BYTES = 30


class AnyOrderOfEvents(RuleBasedStateMachine):
    """The dispatcher beside a model that is too simple to be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.dispatcher: Dispatcher[int] = Dispatcher(
            QueueLimits(MAX_QUEUED, MAX_BYTES, 60, 600, 10)
        )
        self.arrivals = 0
        self.queue: list[QueuedRequest[int]] = []
        self.running: list[SlotReservation[int]] = []
        self.aborted: list[SlotReservation[int]] = []
        self.requeued = 0
        self.blocked = False

    def dispatch(self) -> None:
        reservations = self.dispatcher.dispatch(self.now)
        assert [each.queued for each in reservations] == self.queue[: len(reservations)]
        self.queue = self.queue[len(reservations) :]
        self.running += reservations

    @rule(size=st.integers(0, 20))
    def arrive(self, size: int) -> None:
        queued_bytes = sum(queued.size for queued in self.queue)
        free = sum(replica.free for replica in self.dispatcher.replicas.values())
        fits = free or (len(self.queue) < MAX_QUEUED and queued_bytes + size <= MAX_BYTES)
        try:
            queued = self.dispatcher.enqueue(self.arrivals, size, self.now)
        except QueueFull:
            assert not fits
            return
        assert fits
        self.arrivals += 1
        self.queue.append(queued)
        self.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        self.dispatcher.release(reservation, self.now)
        self.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abort_while_running(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        self.dispatcher.abort(reservation, self.now)
        self.aborted.append(reservation)
        self.dispatch()

    @precondition(lambda self: self.aborted)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.aborted))
        self.aborted.remove(reservation)
        self.dispatcher.release(reservation, self.now)
        self.dispatcher.release(reservation, self.now)
        self.dispatch()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def disconnect_while_queued(self, data: st.DataObject) -> None:
        queued = data.draw(st.sampled_from(self.queue))
        self.queue.remove(queued)
        assert self.dispatcher.cancel(queued)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), sent=st.booleans())
    def fail_before_the_first_byte(self, data: st.DataObject, sent: bool) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        self.dispatcher.drain(reservation.replica.name, self.now)
        if sent:
            self.dispatcher.abort(reservation, self.now)
            self.aborted.append(reservation)
        else:
            self.dispatcher.release(reservation, self.now)
        self.dispatcher.requeue(reservation.queued)
        self.queue = sorted([*self.queue, reservation.queued], key=lambda queued: queued.number)
        self.requeued += 1
        self.dispatch()

    @rule(name=NAMES, slots=st.integers(1, 3))
    def add_replica(self, name: str, slots: int) -> None:
        self.dispatcher.add(name, slots, self.now)
        self.dispatch()

    @rule(name=NAMES)
    def drain_replica(self, name: str) -> None:
        self.dispatcher.drain(name, self.now)

    @rule(name=NAMES)
    def remove_replica(self, name: str) -> None:
        self.dispatcher.remove(name, self.now)

    @rule(permanent=st.sampled_from([None, False, True]))
    def set_blocked(self, permanent: bool | None) -> None:
        self.blocked = bool(permanent)
        blocker = None if permanent is None else StartBlocker("A", "b", permanent)
        self.dispatcher.set_blocked(blocker, self.now)

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 11.0, 59.0, 61.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        expired = self.dispatcher.take_expired(self.now)
        assert expired == self.queue[: len(expired)]
        self.queue = self.queue[len(expired) :]
        for queued in expired:
            blocked = self.blocked and not self.dispatcher.has_replica
            assert self.now - queued.arrived >= (10 if blocked else 60)

    @invariant()
    def no_replica_has_more_than_its_slots(self) -> None:
        for replica in self.dispatcher.replicas.values():
            holds = [each for each in self.running + self.aborted if each.replica is replica]
            assert replica.holds == set(holds)
            assert replica.free == (max(0, replica.slots - len(holds)) if replica.ready else 0)

    @invariant()
    def no_request_is_queued_while_a_slot_is_free(self) -> None:
        if self.queue:
            assert all(replica.free == 0 for replica in self.dispatcher.replicas.values())

    @invariant()
    def the_metrics_are_those_of_the_model(self) -> None:
        dispatcher = self.dispatcher
        assert dispatcher.queued == len(self.queue) <= MAX_QUEUED + self.requeued
        assert dispatcher.queued_bytes == sum(queued.size for queued in self.queue)
        assert (
            dispatcher.busy_slots == len(self.running) + len(self.aborted) <= dispatcher.total_slots
        )

    @invariant()
    def every_queued_request_has_a_deadline(self) -> None:
        deadline = self.dispatcher.next_deadline()
        assert (deadline is None) == (not self.queue)
        if deadline is not None:
            assert deadline <= self.queue[0].arrived + 660

    @invariant()
    def a_removed_replica_is_deleted_with_its_last_hold(self) -> None:
        for replica in self.dispatcher.replicas.values():
            assert replica.holds or not replica.removed


AnyOrderOfEvents.TestCase.settings = settings(
    max_examples=settings().max_examples * 3 // 5, stateful_step_count=40, deadline=None
)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
