from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slotkeeper.scheduling import (
    Affinity,
    Dispatcher,
    FlowKey,
    QueueFull,
    QueueLimits,
    SlotReservation,
)
from slotkeeper.scheduling.reservation import QueuedRequest

NAMES = st.sampled_from(["a", "b", "c", "d"])
PROMPTS = st.sampled_from([(), (1,), (2,), (2, 3), (2, 4), (2, 4, 5)])
STANDINGS = st.builds(FlowKey, st.sampled_from([0, 0, 0, 1]), st.sampled_from("xy"))
BOUNDS = QueueLimits(max_queued=12, max_queued_bytes=10**6)


class WarmPrompts(RuleBasedStateMachine):
    """Any order of events; what is overtaken is counted beside."""

    affinity: ClassVar[Affinity | None] = Affinity(cached_prompts=1, lookahead=4, max_bypass=3)

    def __init__(self) -> None:
        super().__init__()
        self.now = self.given_at = 0.0
        self.made: Dispatcher[int] = Dispatcher(BOUNDS, self.affinity)
        self.waiting: list[QueuedRequest[int]] = []
        self.running: list[SlotReservation[int]] = []
        self.overtaken: dict[QueuedRequest[int], int] = {}

    def give(self) -> None:
        self.given_at = self.now
        # Who waits centrally is overtaken by what is given now, and may join a line after that.
        lines = {ticket: self.line(ticket) for ticket in self.waiting}
        for claim in self.made.dispatch(self.now):
            self.waiting.remove(claim.queued)
            for other in self.waiting:
                # It would have taken this slot.
                if lines[other] in {None, claim.replica.name}:
                    self.overtaken[other] += other.rank < claim.queued.rank
            self.running.append(claim)

    def line(self, ticket: QueuedRequest[int]) -> str | None:
        """The line in which slots are given now: its time there may be over."""
        over = ticket.affinity_since is not None and self.now - ticket.affinity_since >= 5
        return None if over else ticket.affinity_replica

    @rule(prompt=PROMPTS, standing=STANDINGS)
    def arrive(self, prompt: tuple[int, ...], standing: FlowKey) -> None:
        free = any(replica.free for replica in self.made.replicas.values())
        central = any(ticket.affinity_replica is None for ticket in self.waiting)
        try:
            ticket = self.made.enqueue(0, 1, self.now, prompt=prompt, standing=standing)
        except QueueFull:
            assert len(self.waiting) >= BOUNDS.max_queued
            assert central or not free
            return
        self.overtaken[ticket] = 0
        self.waiting.append(ticket)
        for other in self.waiting:
            if other.flow_key == standing:
                assert other.rank <= ticket.rank
        self.give()
        assert len(self.waiting) <= BOUNDS.max_queued + len(self.overtaken)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.running))
        self.running.remove(claim)
        self.made.release(claim, self.now)
        self.give()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        assert self.made.cancel(ticket)
        assert not self.made.cancel(ticket)
        self.give()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.running))
        self.running.remove(claim)
        self.made.drain(claim.replica.name, self.now)
        self.made.release(claim, self.now)
        self.made.requeue(claim.queued)
        self.waiting.append(claim.queued)
        self.give()

    @rule(name=NAMES, slots=st.integers(1, 4))
    def join(self, name: str, slots: int) -> None:
        self.made.add(name, slots, self.now)
        self.give()

    @rule(name=NAMES, for_good=st.booleans())
    def leave(self, name: str, for_good: bool) -> None:
        (self.made.remove if for_good else self.made.drain)(name, self.now)
        self.give()

    @rule(seconds=st.sampled_from([1.0, 4.0, 61.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for ticket in self.made.expired(self.now):
            assert ticket.number == min(each.number for each in self.waiting)
            self.waiting.remove(ticket)
        deadline = self.made.next_deadline()
        assert deadline is None or deadline > self.now
        self.give()

    @invariant()
    def who_waits_though_a_slot_is_free_waits_in_a_short_line_for_another(self) -> None:
        if not any(replica.free for replica in self.made.replicas.values()):
            return
        for ticket in self.waiting:
            assert ticket.affinity_replica is not None
            replica = self.made.replicas[ticket.affinity_replica]
            assert replica.ready
            assert not replica.free
            assert ticket.affinity_since is not None
            assert self.given_at - ticket.affinity_since < 5

    @invariant()
    def lines_are_short(self) -> None:
        for name, line in self.made.queue.affinity_queues.items():
            replica = self.made.replicas[name]
            assert replica.ready
            assert 0 < len(line) <= (replica.slots + 1) // 2

    @invariant()
    def nobody_is_overtaken_too_often(self) -> None:
        limit = self.affinity.max_bypass if self.affinity else 0
        for ticket in self.waiting:
            assert ticket.bypassed == self.overtaken[ticket] <= limit

    @invariant()
    def no_replica_has_more_than_its_slots(self) -> None:
        for replica in self.made.replicas.values():
            held = {claim for claim in self.running if claim.replica is replica}
            assert replica.holds == held

    @invariant()
    def the_queue_is_what_waits(self) -> None:
        queue = self.made.queue
        assert list(queue) == sorted(self.waiting, key=lambda ticket: ticket.rank)
        assert queue.bytes == len(queue) == len(self.waiting)
        assert [queue.position(t) for t in queue] == list(range(1, 1 + len(self.waiting)))
        arrived = min((ticket.number for ticket in self.waiting), default=None)
        assert (queue.oldest.number if queue.oldest else None) == arrived

    @invariant()
    def only_who_gets_requests_is_taken_to_know_prompts(self) -> None:
        for name, count in self.made.affinity_scheduler.prefixes.remembered.items():
            assert self.made.replicas[name].ready
            assert count <= 5


class StrictOrder(WarmPrompts):
    affinity = None


WarmPrompts.TestCase.settings = StrictOrder.TestCase.settings = settings(
    max_examples=settings().max_examples * 4 // 5, stateful_step_count=50, deadline=None
)
TestWarmPrompts = WarmPrompts.TestCase
TestStrictOrder = StrictOrder.TestCase
