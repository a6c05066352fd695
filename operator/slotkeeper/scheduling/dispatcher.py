"""The dispatcher: one queue for all replicas, exact slot counts, bounded waits."""

from collections.abc import Iterator
from typing import Generic

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling.affinity import AffinityLimits, AffinityScheduler
from slotkeeper.scheduling.availability import Availability, QueueLimits
from slotkeeper.scheduling.preemption import Preemption
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.queue import RequestQueue
from slotkeeper.scheduling.replica import AdoptedSlot, FurtherSlot, Replica, SlotHold
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
    queue is at most ceil(slots/2) long, for less than `affinity.max_affinity_wait`; or if the slot
    is kept for a request that needs several and ranks first; or if it is held, because as many
    requests of its key run as `running_limits` allow. No request is bypassed (see RequestQueue)
    more than `affinity.max_bypass` times; without affinity, never. After dispatch(), abort the
    victims(): an ordinary request coexists with a running one that yields only where it would
    coexist with a free slot, or while as many slots are being released as it needs. Preemptible
    requests leave `reserved_slots` free, unless nothing else runs: the next ordinary request gets
    one at once, and another one is released meanwhile.
    """

    def __init__(
        self,
        limits: QueueLimits,
        affinity: AffinityLimits | None = _DEFAULT_AFFINITY,
        *,
        running_limits: RunningLimits | None = None,
        reserved_slots: int = 0,
    ) -> None:
        self.limits = limits
        self._reserved_slots = reserved_slots
        self.affinity = affinity
        self.running_limits = running_limits or RunningLimits()
        self.replicas: dict[str, Replica] = {}
        self.queue: RequestQueue[T] = RequestQueue(
            affinity.max_bypass if affinity else 0, running_limits
        )
        self.affinity_scheduler = AffinityScheduler(self.queue, affinity)
        self.learns_prefixes = False
        """Whether the prefixes of requests are also used to learn which ones they share."""
        self.arrivals = Arrivals()
        self.service_times = ServiceTimes()
        self.preemption: Preemption[T] = Preemption(self.queue)
        self._dispatched = self._busy = self._deferred = 0
        self._busy_preemptible = 0
        self._availability = Availability()

    # Requests.

    def enqueue(  # noqa: PLR0913 (a request has as many properties)
        self,
        request: T,
        size: int,
        now: float,
        *,
        prefixes: PrefixHashes = (),
        tasks: Tasks = ONE_TASK,
        flow_key: FlowKey = _DEFAULT_FLOW_KEY,
        bounded: bool = True,
        abortable: bool = True,
    ) -> QueuedRequest[T]:
        """Enqueue a request whose body has `size` bytes. Raises QueueFull.

        The limits apply to queued requests only: a request that can start at once, or that is
        relayed to the leader (`bounded` False), is always accepted. Preemptible ones make room for
        others: see take_displaced. `abortable`: see QueuedRequest.
        """
        full = self._full(size, flow_key) if bounded else None
        if full and not self._can_start(tasks, flow_key):
            raise QueueFull(full)
        rank = self.queue.rank(flow_key)
        slots = self._expected_slots(tasks)
        preemptible = flow_key.preemptible
        queued = QueuedRequest(
            request, size, now, rank, flow_key, prefixes, tasks, slots, preemptible, abortable
        )
        self.queue.enqueue(queued)
        if not preemptible:
            self.arrivals.record(now, slots)
        # With a full queue the request must not wait: it takes the free slot, whatever its prefix.
        # Nor does one join that needs several slots: it would block the affinity queue.
        if prefixes and not full and not queued.held and tasks is ONE_TASK:
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
                ],
                self.replicas.values(),
            )
            if match is None:
                break
            queued, replica = match
            if queued.preemptible and not self._may_use(queued.tasks.slots_on(replica.slots)):
                # Those that remain are preemptible, too, or wait for other replicas.
                break
            self.queue.dequeue(queued)
            queued.attempts += 1
            hit = self.affinity_scheduler.record_prefix(queued, replica)
            reservation = SlotReservation(replica, now, queued=queued, prefix_hit=hit)
            if queued.preemptible:
                reservation.preemptible = True
                reservation.yields = queued.abortable
            self._dispatched += 1
            replica.last_dispatch = self._dispatched
            self._hold(reservation)
            if queued.tasks is not ONE_TASK:
                self._hold_further(reservation)
            if reservation.yields:
                self.preemption.running[reservation] = None
            reservations.append(reservation)
        self.affinity_scheduler.join_from_window(self.replicas, now)
        return reservations

    def victims(self) -> list[SlotReservation[T]]:
        """Return the preemptible requests to abort now; to be called after dispatch()."""
        reserved = self._reserved_slots if self._busy > self._busy_preemptible else 0
        return self.preemption.victims(self.replicas, reserved)

    def take_displaced(self) -> list[QueuedRequest[T]]:
        """Remove and return the last preemptible requests while the queue is beyond its limits."""
        displaced: list[QueuedRequest[T]] = []
        queue, limits = self.queue, self.limits
        while len(queue.preemptible) and (
            len(queue) > limits.max_queued or queue.bytes > limits.max_queued_bytes
        ):
            displaced.append(queue.preemptible.last)
            queue.cancel(queue.preemptible.last)
        return displaced

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
        if isinstance(hold, SlotReservation | FurtherSlot):
            if hold.preemptible:
                replica.preemptible -= 1
                self._busy_preemptible -= 1
                self._forget_preemptible(hold)
            else:
                self.service_times.ended(now)
            self.queue.released(hold.key)
        if replica.removed and not replica.holds:
            self.replicas.pop(replica.name, None)

    def release_all(self, reservation: SlotReservation[T], now: float) -> None:
        """Free all slots of a request."""
        if reservation.queued.tasks is not ONE_TASK:
            self._end_deferred(reservation)
            for hold in reservation.further:
                self.release(hold, now)
        self.release(reservation, now)

    def abort(self, reservation: SlotReservation[T], now: float) -> None:
        """Mark a request as aborted; its slots are busy until llama-server has released them."""
        self._end_deferred(reservation)
        self._forget_preemptible(reservation)
        for hold in reservation.holds:
            if hold.aborted_at is None:
                hold.aborted_at = now

    def adopt(self, name: str, count: int, now: float) -> None:
        """Mark `count` slots of a replica as busy with requests from elsewhere.

        They were sent by a previous leader, or to the replica directly.
        """
        replica = self.replicas[name]
        replica.holds.update(AdoptedSlot(replica, now, aborted_at=now) for _ in range(count))
        self._busy += count

    def occupy(self, name: str, now: float) -> None:
        """Mark a slot as busy with a prompt that was computed for no request, and was aborted."""
        replica = self.replicas[name]
        replica.holds.add(SlotHold(replica, now, visible_at=now, aborted_at=now))
        self._busy += 1

    # Replicas.

    def add(self, name: str, slots: int, now: float) -> Replica:
        """Add a replica with `slots` slots, or make a drained or removed one ready again."""
        replica = self.replicas.setdefault(name, Replica(name, slots))
        replica.slots = slots
        replica.ready = True
        replica.removed = False
        # The number of slots may have changed, and with it the allowed length of the queue.
        self.queue.disband_affinity(name)
        self.queue.stop_gathering(name)
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
            self.queue.stop_gathering(name)
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
    def further_tasks(self) -> int:
        """Slots that queued requests need beyond one each, and tasks queued inside llama-servers.

        The latter belong to requests with more tasks than their replica has slots. Held and
        preemptible requests do not count.
        """
        return self._deferred + self.queue.tasks - self.queue.held_tasks - self.queue.demand

    @property
    def demand(self) -> int:
        """Slots that all requests would use if there were enough.

        Held and preemptible ones do not count.
        """
        busy = self._busy - self._busy_preemptible
        return busy + self._deferred + self.queue.tasks - self.queue.held_tasks

    @property
    def busy_slots(self) -> int:
        """Number of slots with a request on them."""
        return self._busy

    @property
    def preemptible_busy_slots(self) -> int:
        """Number of those whose request is preemptible, until they are released."""
        return self._busy_preemptible

    @property
    def total_slots(self) -> int:
        """Slots of the ready replicas, and those that are still busy on others."""
        return sum(
            max(replica.slots, replica.busy) if replica.ready else replica.busy
            for replica in self.replicas.values()
        )

    @property
    def slots_per_replica(self) -> int:
        """Slots of the ready replica with the most of them; 0 without one."""
        return max((each.slots for each in self.ready_replicas()), default=0)

    @property
    def uses_prefixes(self) -> bool:
        """Whether the prefixes of requests matter."""
        files = self.affinity_scheduler.files
        return self.learns_prefixes or self.affinity is not None or files is not None

    @property
    def has_replica(self) -> bool:
        """Whether any replica accepts requests."""
        return self._availability.has_replica

    @property
    def start_blocker(self) -> StartBlocker | None:
        """What prevents replicas from starting; None if unknown, or if any replica is ready."""
        return None if self.has_replica else self._availability.start_blocker

    def busy_by_replica(self) -> dict[str, int]:
        """Return the busy slots by replica, without idle replicas and preemptible requests."""
        return {
            name: replica.busy_ordinary
            for name, replica in self.replicas.items()
            if replica.busy_ordinary
        }

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
        needed = self.service_times.time_for(self.queue.tasks + 1, now) or 1.0
        return min(max(1.0, needed), self.limits.cold_start_timeout)

    def _may_use(self, slots: int) -> bool:
        """Whether a preemptible request may use this many slots: enough others remain free, or
        nothing runs."""
        if not self._busy:
            return True
        free = sum(each.free for each in self.replicas.values())
        return free - slots >= self._reserved_slots

    def _hold(self, hold: SlotReservation[T] | FurtherSlot) -> None:
        hold.replica.holds.add(hold)
        self._busy += 1
        if hold.preemptible:
            hold.replica.preemptible += 1
            self._busy_preemptible += 1
        else:
            self.service_times.started(hold.reserved_at)
        self.queue.reserved(hold.key)

    def _hold_further(self, reservation: SlotReservation[T]) -> None:
        replica = reservation.replica
        tasks = reservation.queued.tasks
        count = tasks.slots_on(replica.slots)
        now = reservation.reserved_at
        reservation.further = tuple(
            FurtherSlot(
                replica,
                now,
                key=reservation.key,
                preemptible=reservation.preemptible,
                yields=reservation.yields,
            )
            for _ in range(count - 1)
        )
        for hold in reservation.further:
            self._hold(hold)
        if not reservation.preemptible:
            reservation.deferred = tasks.deferred_on(replica.slots)
            self._deferred += reservation.deferred

    def _end_deferred(self, reservation: SlotReservation[T]) -> None:
        self._deferred -= reservation.deferred
        reservation.deferred = 0

    def _forget_preemptible(self, hold: SlotHold) -> None:
        if self.preemption.running and isinstance(hold, SlotReservation):
            self.preemption.running.pop(hold, None)

    def _can_start(self, tasks: Tasks, flow_key: FlowKey) -> bool:
        queue = self.queue
        before = [*queue.gathering.values(), *queue.peek(1)]
        if not flow_key.preemptible:
            before = [each for each in before if not each.preemptible]
        if flow_key.preemptible and not self._may_use(self._expected_slots(tasks)):
            return False
        return (
            not before
            and queue.may_run(flow_key.key, self._expected_slots(tasks))
            and any(
                each.free + (0 if flow_key.preemptible else each.yielding)
                >= tasks.slots_on(each.slots)
                for each in self.ready_replicas()
            )
        )

    def _expected_slots(self, tasks: Tasks) -> int:
        """Return how many slots a request would use; all tasks while there is no replica."""
        if tasks is ONE_TASK:
            return 1
        slots = self.slots_per_replica
        return tasks.slots_on(slots) if slots else tasks.total

    def _full(self, size: int, flow_key: FlowKey) -> str | None:
        queued, bytes_ = len(self.queue), self.queue.bytes
        if not flow_key.preemptible:
            queued -= len(self.queue.preemptible)
            bytes_ -= self.queue.preemptible_bytes
        if queued >= self.limits.max_queued:
            return f"{queued} requests are queued already (maxQueuedRequests)"
        if bytes_ + size > self.limits.max_queued_bytes:
            return (
                f"requests with {bytes_} bytes are queued already, and this one has {size}: "
                f"more than {self.limits.max_queued_bytes} (maxQueuedBytes)"
            )
        return None

    def _update_availability(self, now: float) -> None:
        has_replica = any(each.ready and each.slots > 0 for each in self.replicas.values())
        self._availability.set_has_replica(has_replica, now)
