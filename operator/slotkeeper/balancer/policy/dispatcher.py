"""The one queue and the slots: exact, first in first out, bounded."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from slotkeeper.balancer.policy.replica import Replica
from slotkeeper.balancer.policy.turnover import Turnover

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many may wait, and how long."""

    max_waiting: int = 1000
    """Requests; one more is refused."""
    max_waiting_bytes: int = 128 * 1024 * 1024
    """Their bodies together."""
    max_wait: float = 60.0
    """Seconds in the queue while there are replicas."""
    max_wait_no_replica: float = 600.0
    """Seconds in the queue while there are none: a first one may be loading its model."""


class QueueFull(Exception):  # noqa: N818 (a bound that holds is no error)
    """There is no place in the queue; the message names the bound."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A request's place: its arrival decides its turn, also when it must be tried again."""

    payload: T
    size: int
    arrived: float
    number: int
    tries: int = 0


@dataclass(slots=True, eq=False)
class Claim(Generic[T]):
    """One slot, held."""

    ticket: Ticket[T]
    replica: Replica
    at: float
    settled_at: float = math.inf
    """When llama-server's /slots is sure to count the request; never, if it needs no slot there."""
    abandoned_at: float | None = None
    """Since when its request is over though llama-server may still be at it."""
    over: bool = False


class Dispatcher(Generic[T]):
    """Hands free slots to those who wait, the oldest first, on the replica with most free slots.

    Whoever calls a method that may free a slot or add one calls `claims` next: nothing waits
    while an accepting replica has a free slot.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.replicas: dict[str, Replica] = {}
        self.waiting_bytes = 0
        self._waiting: OrderedDict[int, Ticket[T]] = OrderedDict()
        self._turnover = Turnover()
        self._arrivals = 0
        self._claims = 0
        self._usable_since: float | None = None

    # Requests.

    def offer(self, payload: T, size: int, now: float) -> Ticket[T]:
        """A place at the queue's end, for a body of `size` bytes. Raises QueueFull.

        The bounds are for those who wait: one that a free slot awaits is within them.
        """
        bounds = self.bounds
        if self._waiting or self._best() is None:
            if len(self._waiting) >= bounds.max_waiting:
                raise QueueFull(f"{bounds.max_waiting} requests are waiting already")
            if self.waiting_bytes + size > bounds.max_waiting_bytes:
                raise QueueFull(f"{self.waiting_bytes} bytes of requests are waiting already")
        self._arrivals += 1
        ticket = Ticket(payload, size, now, self._arrivals)
        self._waiting[ticket.number] = ticket
        self.waiting_bytes += size
        return ticket

    def claims(self, now: float) -> list[Claim[T]]:
        """Give free slots to the oldest that wait."""
        claims: list[Claim[T]] = []
        while self._waiting and (replica := self._best()):
            _, ticket = self._waiting.popitem(last=False)
            self.waiting_bytes -= ticket.size
            ticket.tries += 1
            claim = Claim(ticket, replica, now)
            self._claims += 1
            replica.last_claim = self._claims
            replica.claims.add(claim)
            claims.append(claim)
        return claims

    def withdraw(self, ticket: Ticket[T]) -> bool:
        """The client gave up; whether the request was waiting."""
        if self._waiting.pop(ticket.number, None) is None:
            return False
        self.waiting_bytes -= ticket.size
        return True

    def requeue(self, ticket: Ticket[T]) -> None:
        """Back to where its arrival places it, ahead of all that came later.

        Whoever was let in once is not refused now: the bounds are for arrivals.
        """
        older: list[Ticket[T]] = []
        while self._waiting and next(iter(self._waiting)) < ticket.number:
            older.append(self._waiting.popitem(last=False)[1])
        for each in (ticket, *reversed(older)):
            self._waiting[each.number] = each
            self._waiting.move_to_end(each.number, last=False)
        self.waiting_bytes += ticket.size

    def expired(self, now: float) -> list[Ticket[T]]:
        """Take out those that have waited too long."""
        tickets: list[Ticket[T]] = []
        while self._waiting and (deadline := self.next_deadline()) is not None and deadline <= now:
            _, ticket = self._waiting.popitem(last=False)
            self.waiting_bytes -= ticket.size
            tickets.append(ticket)
        return tickets

    def next_deadline(self) -> float | None:
        """When the next one will have waited too long; None while nobody waits.

        That is always the oldest. Its time for busy replicas begins when there are any: the first
        replica after none must not find everyone overdue. Flapping replicas can lengthen a wait
        to both limits together and no more.
        """
        if not self._waiting:
            return None
        ticket = next(iter(self._waiting.values()))
        bounds = self.bounds
        if self._usable_since is None:
            return ticket.arrived + bounds.max_wait_no_replica
        return min(
            max(ticket.arrived, self._usable_since) + bounds.max_wait,
            ticket.arrived + bounds.max_wait_no_replica + bounds.max_wait,
        )

    # Slots.

    def finish(self, claim: Claim[T], now: float) -> None:
        """The slot is free. A claim that is over already stays so."""
        if claim.over:
            return
        claim.over = True
        replica = claim.replica
        replica.claims.remove(claim)
        self._turnover.note(now)
        if replica.gone and not replica.claims:
            self.replicas.pop(replica.name, None)

    def abandon(self, claim: Claim[T], now: float) -> None:
        """The request is over, its slot is not free before llama-server has let go of it."""
        if claim.abandoned_at is None:
            claim.abandoned_at = now

    # Replicas.

    def add(self, name: str, slots: int, now: float) -> Replica:
        """A replica may be used with `slots` slots; also one that is known, drained or leaving."""
        replica = self.replicas.setdefault(name, Replica(name, slots))
        replica.slots, replica.accepting, replica.gone = slots, True, False
        self._note_usable(now)
        return replica

    def drain(self, name: str, now: float) -> None:
        """A replica gets nothing new. What it has goes on."""
        if name in self.replicas:
            self.replicas[name].accepting = False
            self._note_usable(now)

    def remove(self, name: str, now: float) -> None:
        """A replica leaves for good. What it has goes on, and keeps its slots till then."""
        self.drain(name, now)
        replica = self.replicas.get(name)
        if replica and not replica.claims:
            del self.replicas[name]
        elif replica:
            replica.gone = True

    # Numbers.

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Slots that are held."""
        return sum(replica.held for replica in self.replicas.values())

    @property
    def total(self) -> int:
        """Slots there are: of accepting replicas, and those still held on others."""
        return sum(
            max(replica.slots, replica.held) if replica.accepting else replica.held
            for replica in self.replicas.values()
        )

    @property
    def usable(self) -> bool:
        """There is a replica that takes requests."""
        return self._usable_since is not None

    def accepting(self) -> Iterator[Replica]:
        """The replicas that take requests."""
        return (replica for replica in self.replicas.values() if replica.accepting)

    def oldest_wait(self, now: float) -> float:
        """Seconds that the oldest has waited; 0 where nobody waits."""
        if not self._waiting:
            return 0.0
        return now - next(iter(self._waiting.values())).arrived

    def retry_after(self, now: float) -> float:
        """Seconds after which a refused client may find a place or a slot: 1 or more.

        As many slots must come free as requests wait, at the pace of late; at most the longest
        that anyone waits here.
        """
        needed = self._turnover.seconds_for(self.waiting + 1, now)
        if needed is None or not self.usable:
            return 5.0 if not self.usable else 1.0
        return min(max(1.0, needed), self.bounds.max_wait_no_replica)

    def _best(self) -> Replica | None:
        best: Replica | None = None
        most = 0
        for replica in self.replicas.values():
            free = replica.free
            if free > most or (
                best is not None and free == most and replica.last_claim < best.last_claim
            ):
                best, most = replica, free
        return best

    def _note_usable(self, now: float) -> None:
        usable = any(r.accepting and r.slots > 0 for r in self.replicas.values())
        if not usable:
            self._usable_since = None
        elif self._usable_since is None:
            self._usable_since = now
