"""The dispatcher: one queue for all replicas, exact slot counts, bounded waits."""

from collections.abc import Iterator
from typing import Generic

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling.affinity import AffinityLimits, AffinityScheduler
from slotkeeper.scheduling.availability import Availability, QueueLimits
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.queue import RequestQueue
from slotkeeper.scheduling.replica import AdoptedSlot, Replica, SlotHold
from slotkeeper.scheduling.reservation import (
    FlowKey,
    QueuedRequest,
    SlotReservation,
    T,
)
from slotkeeper.scheduling.running_limits import RunningLimits
from slotkeeper.scheduling.service_times import Arrivals, ServiceTimes


class QueueFull(Exception):  # noqa: N818 (reaching a limit is no error)
    """The queue is at one of its limits; the message names the limit."""


_DEFAULT_AFFINITY = AffinityLimits()
_DEFAULT_FLOW_KEY = FlowKey()


class Dispatcher(Generic[T]):
    """Dispatches queued requests to free slots, in queue order except for prefix-cache affinity.

    After any call that frees, adds or closes a slot, call dispatch(); call it at next_wakeup() at
    the latest. Invariant: a queued request coexists with a free slot only if it is in the affinity
    queue of another ready replica that held its prefix when it joined, is full, and whose affinity
    queue is at most ceil(slots/2) long, for less than `affinity.max_affinity_wait`; or if it is
    held, because as many requests of its key run as `running_limits` allow. No request is
    bypassed (see RequestQueue) more than `affinity.max_bypass` times; without affinity, never.
    """

    def __init__(
        self,
        limits: QueueLimits,
        affinity: AffinityLimits | None = _DEFAULT_AFFINITY,
        *,
        running_limits: RunningLimits | None = None,
    ) -> None:
        self.limits = limits
        self.affinity = affinity
        self.replicas: dict[str, Replica] = {}
        self.queue: RequestQueue[T] = RequestQueue(
            affinity.max_bypass if affinity else 0, running_limits
        )
        self.affinity_scheduler = AffinityScheduler(self.queue, affinity)
        self.arrivals = Arrivals()
        self.service_times = ServiceTimes()
        self._dispatched = self._busy = 0
        self._availability = Availability()

    # Requests.

    def enqueue(
        self,
        request: T,
        size: int,
        now: float,
        *,
        prefixes: PrefixHashes = (),
        flow_key: FlowKey = _DEFAULT_FLOW_KEY,
        bounded: bool = True,
    ) -> QueuedRequest[T]:
        """Enqueue a request whose body has `size` bytes. Raises QueueFull.

        The limits apply to queued requests only: a request that can start at once, or that is
        relayed to the leader (`bounded` False), is always accepted.
        """
        full = self._full(size) if bounded else None
        if full and (
            self.queue.head
            or not any(each.free for each in self.ready_replicas())
            or not self.queue.may_run(flow_key.key)
        ):
            raise QueueFull(full)
        queued = QueuedRequest(request, size, now, self.queue.rank(flow_key), flow_key, prefixes)
        self.queue.enqueue(queued)
        self.arrivals.record(now)
        # With a full queue the request must not wait: it takes the free slot, whatever its prefix.
        if prefixes and not full and not queued.held:
            self.affinity_scheduler.join_affinity_queue(queued, list(self.ready_replicas()), now)
        return queued

    def dispatch(self, now: float) -> list[SlotReservation[T]]:
        """Reserve the free slots for the requests that are next."""
        if not len(self.queue):
            return []
        if self.affinity:
            self.queue.expire_affinity(now - self.affinity.max_affinity_wait)
        reservations: list[SlotReservation[T]] = []
        while len(self.queue):
            match = self.affinity_scheduler.match(
                [
                    each
                    for each in self.replicas.values()
                    # Replica.free inlined: this runs for every replica for each request.
                    if each.ready and each.slots > len(each.holds)
                ]
            )
            if match is None:
                break
            queued, replica = match
            self.queue.dequeue(queued)
            queued.attempts += 1
            hit = self.affinity_scheduler.record_prefix(queued, replica)
            reservation = SlotReservation(replica, now, queued=queued, prefix_hit=hit)
            self._dispatched += 1
            replica.last_dispatch = self._dispatched
            replica.holds.add(reservation)
            self._busy += 1
            self.service_times.started(now)
            reservations.append(reservation)
        self.affinity_scheduler.join_from_window(self.replicas, now)
        return reservations

    def cancel(self, queued: QueuedRequest[T]) -> bool:
        """Remove a request from the queue; return whether it was queued."""
        if queued not in self.queue:
            return False
        self.queue.cancel(queued)
        return True

    def requeue(self, queued: QueuedRequest[T]) -> None:
        """Enqueue a request again at its old rank, ahead of all that arrived later.

        Never raises QueueFull: the limits are for arrivals, and this one was accepted before.
        """
        self.queue.enqueue(queued)

    def take_expired(self, now: float) -> list[QueuedRequest[T]]:
        """Remove and return the requests whose deadline has passed."""
        expired: list[QueuedRequest[T]] = []
        while oldest := self.queue.oldest:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                break
            self.queue.cancel(oldest)
            expired.append(oldest)
        return expired

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, always that of the oldest request; None without any."""
        oldest = self.queue.oldest
        return None if oldest is None else self._availability.deadline(oldest.arrived, self.limits)

    def next_wakeup(self) -> float | None:
        """Return when to call take_expired() and dispatch() if nothing else happens, or None."""
        deadline = self.next_deadline()
        since = self.queue.oldest_affinity_since
        if deadline is None or since is None or self.affinity is None:
            return deadline
        return min(deadline, since + self.affinity.max_affinity_wait)

    def take_all(self) -> list[QueuedRequest[T]]:
        """Remove and return all queued requests, in order: another balancer dispatches them."""
        taken = list(self.queue)
        for queued in taken:
            self.queue.cancel(queued)
        return taken

    # Slots.

    def release(self, hold: SlotHold, now: float) -> None:
        """Free a slot. No effect if it has been released before."""
        if hold.released:
            return
        hold.released = True
        replica = hold.replica
        replica.holds.remove(hold)
        self._busy -= 1
        if isinstance(hold, SlotReservation):
            self.service_times.ended(now)
            self.queue.released(hold.queued)
        if replica.removed and not replica.holds:
            self.replicas.pop(replica.name, None)

    def abort(self, reservation: SlotReservation[T], now: float) -> None:
        """Mark a request as aborted; its slot is busy until llama-server has released it."""
        if reservation.aborted_at is None:
            reservation.aborted_at = now

    def adopt(self, name: str, count: int, now: float) -> None:
        """Mark `count` slots of a replica as busy with requests from elsewhere.

        They were sent by a previous leader, or to the replica directly.
        """
        replica = self.replicas[name]
        replica.holds.update(AdoptedSlot(replica, now, aborted_at=now) for _ in range(count))
        self._busy += count

    # Replicas.

    def add(self, name: str, slots: int, now: float) -> Replica:
        """Add a replica with `slots` slots, or make a drained or removed one ready again."""
        replica = self.replicas.setdefault(name, Replica(name, slots))
        replica.slots = slots
        replica.ready = True
        replica.removed = False
        # The number of slots may have changed, and with it the allowed length of the queue.
        self.queue.disband_affinity(name)
        self._update_availability(now)
        return replica

    def drain(self, name: str, now: float) -> None:
        """Dispatch nothing more to a replica. Its running requests continue.

        Its adopted slots are dropped: they are counted again should it become ready again.
        """
        if name in self.replicas:
            replica = self.replicas[name]
            replica.ready = False
            for hold in [each for each in replica.holds if isinstance(each, AdoptedSlot)]:
                self.release(hold, now)
            self.queue.disband_affinity(name)
            # Should it become ready again, it may be a new process with an empty cache.
            self.affinity_scheduler.prefix_index.remove(name)
            self._update_availability(now)

    def remove(self, name: str, now: float) -> None:
        """Remove a replica for good. Its running requests continue, on their slots."""
        self.drain(name, now)
        replica = self.replicas.get(name)
        if replica and not replica.holds:
            del self.replicas[name]
        elif replica:
            replica.removed = True

    def set_blocked(self, blocker: StartBlocker | None, now: float) -> None:
        """Set what prevents replicas from starting; None if unknown."""
        self._availability.set_blocked(blocker, now)

    # Metrics.

    @property
    def queued(self) -> int:
        """Number of requests without a slot."""
        return len(self.queue)

    @property
    def held(self) -> int:
        """Number of those that more slots would not help: their key is at its limit."""
        return self.queue.held

    @property
    def queued_bytes(self) -> int:
        """Total size of the queued requests' bodies."""
        return self.queue.bytes

    @property
    def busy_slots(self) -> int:
        """Number of slots with a request on them."""
        return self._busy

    @property
    def total_slots(self) -> int:
        """Slots of the ready replicas, and those that are still busy on others."""
        return sum(
            max(replica.slots, replica.busy) if replica.ready else replica.busy
            for replica in self.replicas.values()
        )

    @property
    def has_replica(self) -> bool:
        """Whether any replica accepts requests."""
        return self._availability.has_replica

    @property
    def start_blocker(self) -> StartBlocker | None:
        """What prevents replicas from starting; None if unknown, or if any replica is ready."""
        return None if self.has_replica else self._availability.start_blocker

    def busy_by_replica(self) -> dict[str, int]:
        """Return the busy slots by replica, without idle replicas."""
        return {name: replica.busy for name, replica in self.replicas.items() if replica.busy}

    def ready_replicas(self) -> Iterator[Replica]:
        """Yield the replicas that accept requests."""
        return (replica for replica in self.replicas.values() if replica.ready)

    def oldest_queued_seconds(self, now: float) -> float:
        """Return the seconds since the oldest queued request arrived; 0 for an empty queue."""
        oldest = self.queue.oldest
        return now - oldest.arrived if oldest else 0.0

    def retry_after(self, now: float) -> float:
        """Return the seconds after which a rejected client should retry, at least 1.

        The time until all queued requests and one more have got a slot, at the recent rate of
        completions; at most cold_start_timeout.
        """
        if not self.has_replica:
            return self._availability.cold_start_retry_after
        needed = self.service_times.time_for(self.queued + 1, now) or 1.0
        return min(max(1.0, needed), self.limits.cold_start_timeout)

    def _full(self, size: int) -> str | None:
        queue = self.queue
        if len(queue) >= self.limits.max_queued:
            return f"{self.limits.max_queued} requests are already queued"
        if queue.bytes + size > self.limits.max_queued_bytes:
            return f"{queue.bytes} bytes of requests are already queued"
        return None

    def _update_availability(self, now: float) -> None:
        has_replica = any(each.ready and each.slots > 0 for each in self.replicas.values())
        self._availability.set_has_replica(has_replica, now)
