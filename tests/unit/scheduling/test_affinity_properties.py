from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slotkeeper.scheduling import (
    AffinityLimits,
    Dispatcher,
    FlowKey,
    QueueFull,
    QueueLimits,
    SlotReservation,
)
from slotkeeper.scheduling.reservation import QueuedRequest

NAMES = st.sampled_from(["a", "b", "c", "d"])
PROMPTS = st.sampled_from([(), (1,), (2,), (2, 3), (2, 4), (2, 4, 5)])
FLOW_KEYS = st.builds(FlowKey, st.sampled_from([0, 0, 0, 1]), st.sampled_from("xy"))
LIMITS = QueueLimits(max_queued=12, max_queued_bytes=10**6)


class PrefixAffinity(RuleBasedStateMachine):
    """Any order of events, beside a model that counts the bypasses itself."""

    affinity: ClassVar[AffinityLimits | None] = AffinityLimits(
        cached_prompts=1, lookahead=4, max_bypass=3
    )

    def __init__(self) -> None:
        super().__init__()
        self.now = self.dispatched_at = 0.0
        self.dispatcher: Dispatcher[int] = Dispatcher(LIMITS, self.affinity)
        self.queued: list[QueuedRequest[int]] = []
        self.running: list[SlotReservation[int]] = []
        self.bypassed: dict[QueuedRequest[int], int] = {}

    def dispatch(self) -> None:
        self.dispatched_at = self.now
        # Read before: a request of the shared queue is bypassed first, and may then join another.
        replicas = {queued: self.affinity_replica(queued) for queued in self.queued}
        for reservation in self.dispatcher.dispatch(self.now):
            self.queued.remove(reservation.queued)
            for other in self.queued:
                # It would have taken this slot.
                if replicas[other] in {None, reservation.replica.name}:
                    self.bypassed[other] += other.rank < reservation.queued.rank
            self.running.append(reservation)

    def affinity_replica(self, queued: QueuedRequest[int]) -> str | None:
        """The replica of its affinity queue, unless its time there is over."""
        since = queued.affinity_since
        return None if since is not None and self.now - since >= 5 else queued.affinity_replica

    @rule(prompt=PROMPTS, flow_key=FLOW_KEYS)
    def arrive(self, prompt: tuple[int, ...], flow_key: FlowKey) -> None:
        free = any(replica.free for replica in self.dispatcher.replicas.values())
        shared = any(queued.affinity_replica is None for queued in self.queued)
        before = len(self.queued)
        try:
            queued = self.dispatcher.enqueue(0, 1, self.now, prefixes=prompt, flow_key=flow_key)
        except QueueFull:
            assert before >= LIMITS.max_queued
            assert shared or not free
            return
        self.bypassed[queued] = 0
        self.queued.append(queued)
        for other in self.queued:
            if other.flow_key == flow_key:
                assert other.rank <= queued.rank
        self.dispatch()
        # Requeued requests may exceed the limit; an arrival never does.
        assert len(self.queued) <= max(LIMITS.max_queued, before)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        self.dispatcher.release(reservation, self.now)
        self.dispatch()

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        queued = data.draw(st.sampled_from(self.queued))
        self.queued.remove(queued)
        assert self.dispatcher.cancel(queued)
        assert not self.dispatcher.cancel(queued)
        self.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        reservation = data.draw(st.sampled_from(self.running))
        self.running.remove(reservation)
        self.dispatcher.drain(reservation.replica.name, self.now)
        self.dispatcher.release(reservation, self.now)
        self.dispatcher.requeue(reservation.queued)
        self.queued.append(reservation.queued)
        self.dispatch()

    @rule(name=NAMES, slots=st.integers(1, 4))
    def add_replica(self, name: str, slots: int) -> None:
        self.dispatcher.add(name, slots, self.now)
        self.dispatch()

    @rule(name=NAMES, for_good=st.booleans())
    def remove_replica(self, name: str, for_good: bool) -> None:
        (self.dispatcher.remove if for_good else self.dispatcher.drain)(name, self.now)
        self.dispatch()

    @rule(seconds=st.sampled_from([1.0, 4.0, 61.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for queued in self.dispatcher.take_expired(self.now):
            assert queued.number == min(each.number for each in self.queued)
            self.queued.remove(queued)
        deadline = self.dispatcher.next_deadline()
        assert deadline is None or deadline > self.now
        self.dispatch()

    @invariant()
    def queued_beside_a_free_slot_means_in_the_affinity_queue_of_a_full_replica(self) -> None:
        if not any(replica.free for replica in self.dispatcher.replicas.values()):
            return
        for queued in self.queued:
            assert queued.affinity_replica is not None
            replica = self.dispatcher.replicas[queued.affinity_replica]
            assert replica.ready
            assert not replica.free
            assert queued.affinity_since is not None
            assert self.dispatched_at - queued.affinity_since < 5

    @invariant()
    def affinity_queues_are_short(self) -> None:
        for name, affinity_queue in self.dispatcher.queue.affinity_queues.items():
            replica = self.dispatcher.replicas[name]
            assert replica.ready
            assert 0 < len(affinity_queue) <= (replica.slots + 1) // 2

    @invariant()
    def no_request_is_bypassed_beyond_the_limit(self) -> None:
        limit = self.affinity.max_bypass if self.affinity else 0
        for queued in self.queued:
            assert queued.bypassed == self.bypassed[queued] <= limit

    @invariant()
    def the_queue_is_bounded_but_for_requeued_requests(self) -> None:
        assert sum(not queued.attempts for queued in self.queued) <= LIMITS.max_queued

    @invariant()
    def no_replica_has_more_than_its_slots(self) -> None:
        for replica in self.dispatcher.replicas.values():
            running = {each for each in self.running if each.replica is replica}
            assert replica.holds == running

    @invariant()
    def the_queue_is_what_is_queued(self) -> None:
        queue = self.dispatcher.queue
        assert list(queue) == sorted(self.queued, key=lambda queued: queued.rank)
        assert queue.bytes == len(queue) == len(self.queued)
        assert [queue.position(each) for each in queue] == list(range(1, 1 + len(self.queued)))
        arrived = min((queued.number for queued in self.queued), default=None)
        assert (queue.oldest.number if queue.oldest else None) == arrived

    @invariant()
    def only_ready_replicas_have_recorded_prompts(self) -> None:
        for name, count in self.dispatcher.affinity_scheduler.prefix_index.prompt_counts.items():
            assert self.dispatcher.replicas[name].ready
            assert count <= 5


class StrictOrder(PrefixAffinity):
    affinity = None


PrefixAffinity.TestCase.settings = StrictOrder.TestCase.settings = settings(
    max_examples=settings().max_examples * 4 // 5, stateful_step_count=50, deadline=None
)
TestPrefixAffinity = PrefixAffinity.TestCase
TestStrictOrder = StrictOrder.TestCase
