from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling import Dispatcher, QueuedRequest, QueueFull, QueueLimits, SlotReservation

NAMES = st.sampled_from(["a", "b", "c"])
MAX_WAITING = 4
MAX_BYTES = 30


class AnyOrderOfEvents(RuleBasedStateMachine):
    """The dispatcher beside a model that is too simple to be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.made: Dispatcher[int] = Dispatcher(QueueLimits(MAX_WAITING, MAX_BYTES, 60, 600, 10))
        self.arrivals = 0
        self.queue: list[QueuedRequest[int]] = []
        self.running: list[SlotReservation[int]] = []
        self.abandoned: list[SlotReservation[int]] = []
        self.tried_again = 0
        self.hopeless = False

    def give(self) -> None:
        claims = self.made.dispatch(self.now)
        assert [claim.queued for claim in claims] == self.queue[: len(claims)]
        self.queue = self.queue[len(claims) :]
        self.running += claims

    @rule(size=st.integers(0, 20))
    def arrive(self, size: int) -> None:
        held = sum(ticket.size for ticket in self.queue)
        free = sum(replica.free for replica in self.made.replicas.values())
        fits = free or (len(self.queue) < MAX_WAITING and held + size <= MAX_BYTES)
        try:
            ticket = self.made.enqueue(self.arrivals, size, self.now)
        except QueueFull:
            assert not fits
            return
        assert fits
        self.arrivals += 1
        self.queue.append(ticket)
        self.give()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.running))
        self.running.remove(claim)
        self.made.release(claim, self.now)
        self.give()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abort_while_running(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.running))
        self.running.remove(claim)
        self.made.abort(claim, self.now)
        self.abandoned.append(claim)
        self.give()

    @precondition(lambda self: self.abandoned)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.abandoned))
        self.abandoned.remove(claim)
        self.made.release(claim, self.now)
        self.made.release(claim, self.now)
        self.give()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def abort_while_waiting(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.queue))
        self.queue.remove(ticket)
        assert self.made.cancel(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), sent=st.booleans())
    def fail_before_the_first_byte(self, data: st.DataObject, sent: bool) -> None:
        claim = data.draw(st.sampled_from(self.running))
        self.running.remove(claim)
        self.made.drain(claim.replica.name, self.now)
        if sent:
            self.made.abort(claim, self.now)
            self.abandoned.append(claim)
        else:
            self.made.release(claim, self.now)
        self.made.requeue(claim.queued)
        self.queue = sorted([*self.queue, claim.queued], key=lambda ticket: ticket.number)
        self.tried_again += 1
        self.give()

    @rule(name=NAMES, slots=st.integers(1, 3))
    def join(self, name: str, slots: int) -> None:
        self.made.add(name, slots, self.now)
        self.give()

    @rule(name=NAMES)
    def drain(self, name: str) -> None:
        self.made.drain(name, self.now)

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        self.made.remove(name, self.now)

    @rule(permanent=st.sampled_from([None, False, True]))
    def hinder(self, permanent: bool | None) -> None:
        self.hopeless = bool(permanent)
        found = None if permanent is None else StartBlocker("A", "b", permanent)
        self.made.set_blocked(found, self.now)

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 11.0, 59.0, 61.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        expired = self.made.expired(self.now)
        assert expired == self.queue[: len(expired)]
        self.queue = self.queue[len(expired) :]
        for ticket in expired:
            hopeless = self.hopeless and not self.made.has_replica
            assert self.now - ticket.arrived >= (10 if hopeless else 60)

    @invariant()
    def no_replica_has_more_than_its_slots(self) -> None:
        for replica in self.made.replicas.values():
            held = [c for c in self.running + self.abandoned if c.replica is replica]
            assert replica.holds == set(held)
            assert replica.free == (max(0, replica.slots - len(held)) if replica.ready else 0)

    @invariant()
    def nothing_waits_while_a_slot_is_free(self) -> None:
        if self.queue:
            assert all(replica.free == 0 for replica in self.made.replicas.values())

    @invariant()
    def the_numbers_are_those_of_the_model(self) -> None:
        assert self.made.queued == len(self.queue) <= MAX_WAITING + self.tried_again
        assert self.made.queued_bytes == sum(ticket.size for ticket in self.queue)
        assert (
            self.made.busy_slots == len(self.running) + len(self.abandoned) <= self.made.total_slots
        )

    @invariant()
    def who_waits_has_an_end_to_it(self) -> None:
        deadline = self.made.next_deadline()
        assert (deadline is None) == (not self.queue)
        if deadline is not None:
            assert deadline <= self.queue[0].arrived + 660

    @invariant()
    def a_replica_that_left_is_forgotten_with_its_last_claim(self) -> None:
        for replica in self.made.replicas.values():
            assert replica.holds or not replica.removed


AnyOrderOfEvents.TestCase.settings = settings(
    max_examples=settings().max_examples * 3 // 5, stateful_step_count=40, deadline=None
)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
