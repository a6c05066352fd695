"""The request queue: its order, the affinity queues, and the count of bypasses."""

from collections.abc import Iterable, Iterator
from typing import Generic

from slotkeeper.scheduling.fairness import RoundRobin
from slotkeeper.scheduling.reservation import FlowKey, QueuedRequest, QueueRank, T
from slotkeeper.scheduling.running_limits import KeyedRequests, RunningLimits
from slotkeeper.scheduling.sorted_list import SortedList


class RequestQueue(Generic[T]):
    """All queued requests in one order: by priority, by round robin among keys, by arrival.

    A request is either in the affinity queue of a replica, whose cache holds its prefix, or in the
    shared queue, from which it takes any slot. It is bypassed when a request that ranks behind it
    is dispatched to a slot that it would have taken. In the shared queue it would have taken any
    slot; in an affinity queue it is not bypassed by a dispatch to another replica. After
    `max_bypass` times a request is at the bypass limit: no request that ranks behind it may be
    dispatched before it. The limit is exact as long as callers of `dequeue` take no request that
    ranks behind `at_bypass_limit`.

    A request that needs several slots may have a replica of its own to gather them on. It is then
    in neither queue, and like a request in an affinity queue it is not bypassed by a dispatch to
    another replica.

    Requests of keys at their limit of running requests are held (see KeyedRequests): they are in
    neither queue, and are not bypassed.

    Counting takes one step for each bypass, so `max_bypass` steps per request in all.
    """

    def __init__(self, max_bypass: int, running_limits: RunningLimits | None = None) -> None:
        self.bytes = 0
        self.tasks = 0
        """Slots that all queued requests would use if replicas had enough, without preemptible
        ones."""
        self.preemptible: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        """The queued requests that are preemptible."""
        self.preemptible_bytes = 0
        self._max_bypass = max_bypass
        self._shared: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self.affinity_queues: dict[str, SortedList[QueueRank, QueuedRequest[T]]] = {}
        """By replica; only those that are not empty."""
        self.gathering: dict[str, QueuedRequest[T]] = {}
        """By replica, the request that its free slots are kept for."""
        self._in_affinity: dict[QueuedRequest[T], None] = {}  # in the order in which they joined
        self._at_bypass_limit: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self._arrivals: SortedList[int, QueuedRequest[T]] = SortedList()
        self._round_robin = RoundRobin()
        self._arrived = 0
        self._keyed: KeyedRequests[T] | None = None
        if running_limits:
            self._keyed = KeyedRequests(running_limits, self._hold, self._resume)

    def __len__(self) -> int:
        return len(self._arrivals)

    def __contains__(self, queued: QueuedRequest[T]) -> bool:
        return queued.number in self._arrivals

    def __iter__(self) -> Iterator[QueuedRequest[T]]:
        """All queued requests, in order."""
        return iter(sorted(self._arrivals, key=lambda queued: queued.rank))

    # Changes.

    def rank(self, flow_key: FlowKey) -> QueueRank:
        """Return the rank of a request that arrives."""
        self._arrived += 1
        return -flow_key.priority, self._round_robin.next_round(flow_key), self._arrived

    def enqueue(self, queued: QueuedRequest[T]) -> None:
        """Add a request to the shared queue."""
        self._arrivals.add(queued.number, queued)
        self._round_robin.enqueue(queued.flow_key, queued.rank[1])
        self.bytes += queued.size
        if queued.preemptible:
            self.preemptible.add(queued.rank, queued)
            self.preemptible_bytes += queued.size
        else:
            self.tasks += queued.tasks.total
        self._insert(queued, None)
        if self._keyed:
            self._keyed.enqueued(queued)

    def reserved(self, key: str) -> None:
        """Count a slot that was reserved for a request of `key`."""
        if self._keyed:
            self._keyed.reserved(key)

    def released(self, key: str) -> None:
        """Count a slot that was released: another request of `key` may run."""
        if self._keyed:
            self._keyed.released(key)

    def move_to_gathering(self, queued: QueuedRequest[T], replica: str) -> None:
        """Keep the free slots of `replica` for a request of the shared queue."""
        self._extract(queued)
        self.stop_gathering(replica)
        queued.gathering_on = replica
        self.gathering[replica] = queued

    def stop_gathering(self, replica: str) -> None:
        """Return the request that gathers slots on `replica`, if any, to the shared queue."""
        queued = self.gathering.get(replica)
        if queued:
            self._extract(queued)
            self._insert(queued, None)

    def move_to_affinity(self, queued: QueuedRequest[T], replica: str, now: float) -> None:
        """Move a request from the shared queue to the affinity queue of `replica`."""
        self._extract(queued)
        queued.affinity_since = now
        self._insert(queued, replica)

    def cancel(self, queued: QueuedRequest[T]) -> None:
        """Remove a request that gets no slot."""
        self._remove(queued)
        self._round_robin.remove(queued.flow_key, served=False)
        if self._keyed:
            self._keyed.cancelled(queued)

    def dequeue(self, queued: QueuedRequest[T]) -> None:
        """Remove a request that gets a slot; it bypasses all before it in the shared queue."""
        self._remove(queued)
        if self._keyed:
            self._keyed.dispatched(queued)
        bypassed = self._shared.peek(self._shared.rank_of(queued.rank))
        if not bypassed:
            self._round_robin.start_round(queued.flow_key, queued.rank[1])
        self._round_robin.remove(queued.flow_key, served=True)
        for other in bypassed:
            other.bypassed += 1
            if other.bypassed == self._max_bypass:
                self._at_bypass_limit.add(other.rank, other)

    def disband_affinity(self, replica: str) -> None:
        """Move all requests in the affinity queue of `replica` to the shared queue."""
        for queued in list(self.affinity_queues.get(replica, ())):
            self._extract(queued)
            self._insert(queued, None)

    def expire_affinity(self, joined: float) -> None:
        """Move requests that joined an affinity queue at `joined` or before to the shared queue."""
        while (since := self.oldest_affinity_since) is not None and since <= joined:
            queued = next(iter(self._in_affinity))
            self._extract(queued)
            self._insert(queued, None)

    # Queries.

    @property
    def oldest(self) -> QueuedRequest[T] | None:
        """The request that arrived first."""
        return self._arrivals.head

    @property
    def oldest_demand(self) -> QueuedRequest[T] | None:
        """The request that arrived first of those that count as demand: see `demand`."""
        counted = (each for each in self._arrivals if not (each.held or each.preemptible))
        return next(counted, None)

    @property
    def demand(self) -> int:
        """Number of requests that count as demand for slots: neither held nor preemptible."""
        held = self._keyed.held - self._keyed.held_preemptible if self._keyed else 0
        return len(self) - len(self.preemptible) - held

    @property
    def oldest_affinity_since(self) -> float | None:
        """When the request that has been in an affinity queue for longest joined it."""
        return next(iter(self._in_affinity)).affinity_since if self._in_affinity else None

    @property
    def head(self) -> QueuedRequest[T] | None:
        """The first request of the shared queue."""
        return self._shared.head

    @property
    def at_bypass_limit(self) -> QueuedRequest[T] | None:
        """The first request that may not be bypassed any more; it is in the shared queue."""
        return self._at_bypass_limit.head

    @property
    def held(self) -> int:
        """Number of requests that are held because their key is at its limit."""
        return self._keyed.held if self._keyed else 0

    @property
    def held_tasks(self) -> int:
        """Slots that the held requests would use if replicas had enough, without preemptible
        ones."""
        return self._keyed.held_tasks if self._keyed else 0

    def slots_lacking(self, key: str) -> Iterable[int]:
        """Return how many slots of `key` each of its held requests needs: see KeyedRequests."""
        return self._keyed.slots_lacking(key) if self._keyed else ()

    def may_run(self, key: str, slots: int) -> bool:
        """Whether a request of `key` could run now if as many slots are free."""
        return self._keyed is None or self._keyed.may_run(key, slots)

    @property
    def shared(self) -> int:
        """Length of the shared queue."""
        return len(self._shared)

    def shared_before(self, queued: QueuedRequest[T]) -> int:
        """Return the number of requests in the shared queue that rank before this one."""
        return self._shared.rank_of(queued.rank)

    def peek(self, count: int) -> list[QueuedRequest[T]]:
        """Return the first `count` requests of the shared queue."""
        return self._shared.peek(count)

    def position(self, queued: QueuedRequest[T]) -> int:
        """Return a request's position in the whole queue, from 1; 0 if it is not queued."""
        if queued not in self:
            return 0
        queues = (self._shared, *self.affinity_queues.values())
        gathering = sum(other.rank < queued.rank for other in self.gathering.values())
        held = self._keyed.rank_of(queued) if self._keyed else 0
        return 1 + gathering + held + sum(queue.rank_of(queued.rank) for queue in queues)

    def _remove(self, queued: QueuedRequest[T]) -> None:
        self._arrivals.discard(queued.number)
        self.bytes -= queued.size
        if queued.preemptible:
            self.preemptible.discard(queued.rank)
            self.preemptible_bytes -= queued.size
        else:
            self.tasks -= queued.tasks.total
        self._extract(queued)

    def _hold(self, queued: QueuedRequest[T]) -> None:
        self._extract(queued)
        queued.held = True

    def _resume(self, queued: QueuedRequest[T]) -> None:
        queued.held = False
        self._insert(queued, None)

    def _insert(self, queued: QueuedRequest[T], replica: str | None) -> None:
        queued.affinity_replica = replica
        queue = (
            self._shared
            if replica is None
            else self.affinity_queues.setdefault(replica, SortedList())
        )
        queue.add(queued.rank, queued)
        if replica is not None:
            self._in_affinity[queued] = None
        elif queued.bypassed >= self._max_bypass:
            self._at_bypass_limit.add(queued.rank, queued)

    def _extract(self, queued: QueuedRequest[T]) -> None:
        if queued.held:
            queued.held = False
            return
        if queued.gathering_on is not None:
            del self.gathering[queued.gathering_on]
            queued.gathering_on = None
            return
        if queued.bypassed >= self._max_bypass:
            self._at_bypass_limit.discard(queued.rank)
        if queued.affinity_replica is None:
            self._shared.discard(queued.rank)
            return
        affinity_queue = self.affinity_queues[queued.affinity_replica]
        affinity_queue.discard(queued.rank)
        if not len(affinity_queue):
            del self.affinity_queues[queued.affinity_replica]
        del self._in_affinity[queued]
        queued.affinity_replica = None
