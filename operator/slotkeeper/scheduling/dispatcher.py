"""The one queue and the slots: exact, in order, bounded."""

from collections.abc import Iterator
from typing import Generic

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling.affinity import Affinity, AffinityScheduler
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
from slotkeeper.scheduling.service_times import Arrivals, ServiceTimes


class QueueFull(Exception):  # noqa: N818 (a bound that holds is no error)
    """There is no place in the queue; the message names the bound."""


_AFFINITY = Affinity()
_STANDING = FlowKey()


class Dispatcher(Generic[T]):
    """Hands free slots to those who wait, in the queue's order, bent for warm prompts.

    Whoever calls a method that may free a slot, add one or close one calls `claims` next, and at
    `next_call` at the latest. Then this holds: a request that waits while an accepting replica
    has a free slot waits in the line of another accepting replica, one whose cache knew its
    prompt when it joined, all of whose slots are held, and whose line is not longer than half its
    slots, rounded up; and it has waited there for less than `affinity.max_affinity_wait`. Nobody is
    overtaken (see Queue) more than `affinity.max_overtaken` times; without affinity, never.
    """

    def __init__(self, bounds: QueueLimits, affinity: Affinity | None = _AFFINITY) -> None:
        self.limits = bounds
        self.affinity = affinity
        self.replicas: dict[str, Replica] = {}
        self.queue: RequestQueue[T] = RequestQueue(affinity.max_bypass if affinity else 0)
        self.affinity_scheduler = AffinityScheduler(self.queue, affinity)
        self.arrivals = Arrivals()
        self.service_times = ServiceTimes()
        self._dispatched = self._busy = 0
        self._availability = Availability()

    # Requests.

    def enqueue(
        self,
        payload: T,
        size: int,
        now: float,
        *,
        prompt: PrefixHashes = (),
        standing: FlowKey = _STANDING,
        bounded: bool = True,
    ) -> QueuedRequest[T]:
        """A place in the queue, for a body of `size` bytes. Raises QueueFull.

        The bounds are for those who wait: not for one that a free slot awaits, or (not `bounded`)
        another balancer.
        """
        full = self._full(size) if bounded else None
        if full and (self.queue.head or not any(each.free for each in self.ready_replicas())):
            raise QueueFull(full)  # rather any free slot than no place in a line
        ticket = QueuedRequest(payload, size, now, self.queue.rank(standing), standing, prompt)
        self.queue.enqueue(ticket)
        self.arrivals.record(now)
        if prompt and not full:
            self.affinity_scheduler.join_affinity_queue(ticket, list(self.ready_replicas()), now)
        return ticket

    def dispatch(self, now: float) -> list[SlotReservation[T]]:
        """Give free slots to those that are next."""
        if not len(self.queue):
            return []
        if self.affinity:
            self.queue.expire_affinity(now - self.affinity.max_affinity_wait)
        claims: list[SlotReservation[T]] = []
        while len(self.queue):
            match = self.affinity_scheduler.match(
                [
                    each
                    for each in self.replicas.values()
                    # As Replica.free says, but this is asked of all of them for each request.
                    if each.ready and each.slots > len(each.holds)
                ]
            )
            if match is None:
                break
            ticket, replica = match
            self.queue.dequeue(ticket)
            ticket.attempts += 1
            hit = self.affinity_scheduler.record_prefix(ticket, replica)
            claim = SlotReservation(replica, now, queued=ticket, prefix_hit=hit)
            self._dispatched += 1
            replica.last_dispatch = self._dispatched
            replica.holds.add(claim)
            self._busy += 1
            self.service_times.started(now)
            claims.append(claim)
        self.affinity_scheduler.join_from_window(self.replicas, now)
        return claims

    def cancel(self, ticket: QueuedRequest[T]) -> bool:
        """The client gave up; whether the request was waiting."""
        if ticket not in self.queue:
            return False
        self.queue.cancel(ticket)
        return True

    def requeue(self, ticket: QueuedRequest[T]) -> None:
        """Back to where its arrival places it, ahead of all that came later.

        Whoever was let in once is not refused now: the bounds are for arrivals.
        """
        self.queue.enqueue(ticket)

    def expired(self, now: float) -> list[QueuedRequest[T]]:
        """Take out those that have waited too long."""
        tickets: list[QueuedRequest[T]] = []
        while ticket := self.queue.oldest:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                break
            self.queue.cancel(ticket)
            tickets.append(ticket)
        return tickets

    def next_deadline(self) -> float | None:
        """When the next one will have waited too long; None while nobody waits.

        That is always the oldest.
        """
        ticket = self.queue.oldest
        return None if ticket is None else self._availability.deadline(ticket.arrived, self.limits)

    def next_wakeup(self) -> float | None:
        """When to call `expired` and `claims` even if nothing happens; None: never."""
        deadline = self.next_deadline()
        since = self.queue.oldest_affinity_since
        if deadline is None or since is None or self.affinity is None:
            return deadline
        return min(deadline, since + self.affinity.max_affinity_wait)

    def take_all(self) -> list[QueuedRequest[T]]:
        """Take out all that wait, in order: another balancer gives them their slots."""
        tickets = list(self.queue)
        for ticket in tickets:
            self.queue.cancel(ticket)
        return tickets

    # Slots.

    def release(self, claim: SlotHold, now: float) -> None:
        """The slot is free. A claim that is over already stays so."""
        if claim.released:
            return
        claim.released = True
        replica = claim.replica
        replica.holds.remove(claim)
        self._busy -= 1
        if isinstance(claim, SlotReservation):
            self.service_times.ended(now)
        if replica.removed and not replica.holds:
            self.replicas.pop(replica.name, None)

    def abort(self, claim: SlotReservation[T], now: float) -> None:
        """The request is over, its slot is not free before llama-server has let go of it."""
        if claim.aborted_at is None:
            claim.aborted_at = now

    def adopt(self, name: str, count: int, now: float) -> None:
        """So many slots of a replica are held by requests that did not come through here.

        They are of a balancer that was here before, or of whoever goes past this one.
        """
        replica = self.replicas[name]
        replica.holds.update(AdoptedSlot(replica, now, aborted_at=now) for _ in range(count))
        self._busy += count

    # Replicas.

    def add(self, name: str, slots: int, now: float) -> Replica:
        """A replica may be used with `slots` slots; also one that is known, drained or leaving."""
        replica = self.replicas.setdefault(name, Replica(name, slots))
        replica.slots = slots
        replica.ready = True
        replica.removed = False
        # A line that was short enough for its slots may not be so any more.
        self.queue.disband_affinity(name)
        self._update_availability(now)
        return replica

    def drain(self, name: str, now: float) -> None:
        """A replica gets nothing new. What it has goes on.

        What it inherited is forgotten: it is counted anew should the replica come back.
        """
        if name in self.replicas:
            replica = self.replicas[name]
            replica.ready = False
            for claim in [each for each in replica.holds if isinstance(each, AdoptedSlot)]:
                self.release(claim, now)
            self.queue.disband_affinity(name)
            # Should it come back, then maybe as a new process.
            self.affinity_scheduler.prefixes.forget(name)
            self._update_availability(now)

    def remove(self, name: str, now: float) -> None:
        """A replica leaves for good. What it has goes on, and keeps its slots till then."""
        self.drain(name, now)
        replica = self.replicas.get(name)
        if replica and not replica.holds:
            del self.replicas[name]
        elif replica:
            replica.removed = True

    def set_blocked(self, obstacle: StartBlocker | None, now: float) -> None:
        """This keeps replicas from starting, as far as anybody knows; None: nothing does."""
        self._availability.set_blocked(obstacle, now)

    # Numbers.

    @property
    def queued(self) -> int:
        """Requests without a slot."""
        return len(self.queue)

    @property
    def queued_bytes(self) -> int:
        """Their bodies together."""
        return self.queue.bytes

    @property
    def busy_slots(self) -> int:
        """Slots that are held."""
        return self._busy

    @property
    def total_slots(self) -> int:
        """Slots there are: of accepting replicas, and those still held on others."""
        return sum(
            max(replica.slots, replica.busy) if replica.ready else replica.busy
            for replica in self.replicas.values()
        )

    @property
    def has_replica(self) -> bool:
        """There is a replica that takes requests."""
        return self._availability.has_replica

    @property
    def obstacle(self) -> StartBlocker | None:
        """What keeps replicas from starting, where there is none and something is known to."""
        return None if self.has_replica else self._availability.obstacle

    def busy_by_replica(self) -> dict[str, int]:
        """Held slots by replica, of those that have any."""
        return {name: replica.busy for name, replica in self.replicas.items() if replica.busy}

    def ready_replicas(self) -> Iterator[Replica]:
        """The replicas that take requests."""
        return (replica for replica in self.replicas.values() if replica.ready)

    def oldest_queued_seconds(self, now: float) -> float:
        """Seconds that the oldest has waited; 0 where nobody waits."""
        oldest = self.queue.oldest
        return now - oldest.arrived if oldest else 0.0

    def retry_after(self, now: float) -> float:
        """Seconds after which a refused client may find a place or a slot: 1 or more.

        As many slots must come free as requests wait, at the pace of late; at most the longest
        that anyone waits here.
        """
        if not self.has_replica:
            return self._availability.retry_after
        needed = self.service_times.time_for(self.queued + 1, now) or 1.0
        return min(max(1.0, needed), self.limits.cold_start_timeout)

    def _full(self, size: int) -> str | None:
        bounds = self.limits
        queue = self.queue
        if len(queue) >= bounds.max_queued:
            return f"{bounds.max_queued} requests are waiting already"
        if queue.bytes + size > bounds.max_queued_bytes:
            return f"{queue.bytes} bytes of requests are waiting already"
        return None

    def _update_availability(self, now: float) -> None:
        usable = any(r.ready and r.slots > 0 for r in self.replicas.values())
        self._availability.set_has_replica(usable, now)
