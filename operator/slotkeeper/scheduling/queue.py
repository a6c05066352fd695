"""The one queue: its order, its lines for warm prompts, and who was overtaken how often."""

from collections.abc import Iterator
from typing import Generic

from slotkeeper.scheduling.fairness import RoundRobin
from slotkeeper.scheduling.reservation import FlowKey, QueuedRequest, QueueRank, T
from slotkeeper.scheduling.sorted_list import SortedList


class RequestQueue(Generic[T]):
    """All that wait have one order: by priority, then by turns among keys, then by arrival.

    Some stand in a replica's line, since its cache holds their prompt's beginning; the others,
    the central ones, take any slot. One is overtaken when another that stands behind it in the
    one order gets a slot that it would have taken: for a central one that is any slot; one in a
    line is not overtaken by what starts elsewhere. One that was overtaken `max_overtaken` times
    is due, and nobody who stands behind it may be taken before it: to `take` nobody behind `due`
    is what makes the limit exact.

    Counting costs a step for each one overtaken, which is `max_overtaken` steps a request in all.
    """

    def __init__(self, max_bypass: int) -> None:
        self.bytes = 0
        self._max_bypass = max_bypass
        self._shared: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self.affinity_queues: dict[str, SortedList[QueueRank, QueuedRequest[T]]] = {}
        """By replica; only those in which there is somebody."""
        self._in_affinity: dict[QueuedRequest[T], None] = {}  # those in lines, as they joined
        self._at_bypass_limit: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self._arrivals: SortedList[int, QueuedRequest[T]] = SortedList()
        self._round_robin = RoundRobin()
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def __contains__(self, ticket: QueuedRequest[T]) -> bool:
        return ticket.number in self._arrivals

    def __iter__(self) -> Iterator[QueuedRequest[T]]:
        """All that wait, in order."""
        return iter(sorted(self._arrivals, key=lambda ticket: ticket.rank))

    # Coming and going.

    def rank(self, standing: FlowKey) -> QueueRank:
        """The place of a request that arrives."""
        self._numbers += 1
        return -standing.priority, self._round_robin.next(standing), self._numbers

    def enqueue(self, ticket: QueuedRequest[T]) -> None:
        """The ticket waits from now on, centrally."""
        self._arrivals.add(ticket.number, ticket)
        self._round_robin.enqueue(ticket.flow_key, ticket.rank[1])
        self.bytes += ticket.size
        self._place(ticket, None)

    def move_to_affinity(self, ticket: QueuedRequest[T], line: str, now: float) -> None:
        """A ticket that waits centrally steps into the line of a replica."""
        self._displace(ticket)
        ticket.affinity_since = now
        self._place(ticket, line)

    def cancel(self, ticket: QueuedRequest[T]) -> None:
        """The ticket waits no more, and gets no slot."""
        self._remove(ticket)
        self._round_robin.leave(ticket.flow_key, served=False)

    def dequeue(self, ticket: QueuedRequest[T]) -> None:
        """The ticket gets a slot, before all that stand ahead of it centrally."""
        self._remove(ticket)
        overtaken = self._shared.peek(self._shared.rank_of(ticket.rank))
        if not overtaken:
            self._round_robin.start_round(ticket.flow_key, ticket.rank[1])
        self._round_robin.leave(ticket.flow_key, served=True)
        for other in overtaken:
            other.bypassed += 1
            if other.bypassed == self._max_bypass:
                self._at_bypass_limit.add(other.rank, other)

    def disband_affinity(self, line: str) -> None:
        """All that stand in a replica's line stand centrally from now on."""
        for ticket in list(self.affinity_queues.get(line, ())):
            self._displace(ticket)
            self._place(ticket, None)

    def expire_affinity(self, joined: float) -> None:
        """Those that joined a line at this time or before stand centrally from now on."""
        while (since := self.oldest_affinity_since) is not None and since <= joined:
            ticket = next(iter(self._in_affinity))
            self._displace(ticket)
            self._place(ticket, None)

    # Looking.

    @property
    def oldest(self) -> QueuedRequest[T] | None:
        """The one that arrived first."""
        return self._arrivals.first

    @property
    def oldest_affinity_since(self) -> float | None:
        """When the one that has been in a line for longest joined it."""
        return next(iter(self._in_affinity)).affinity_since if self._in_affinity else None

    @property
    def head(self) -> QueuedRequest[T] | None:
        """The first of those that take any slot."""
        return self._shared.first

    @property
    def at_bypass_limit(self) -> QueuedRequest[T] | None:
        """The first of those that must not be overtaken any more: it stands centrally."""
        return self._at_bypass_limit.first

    @property
    def shared(self) -> int:
        """How many take any slot."""
        return len(self._shared)

    def peek(self, count: int) -> list[QueuedRequest[T]]:
        """The first `count` of those that take any slot."""
        return self._shared.peek(count)

    def position(self, ticket: QueuedRequest[T]) -> int:
        """1 for the first of all that wait; 0 for one that does not wait."""
        if ticket not in self:
            return 0
        rows = (self._shared, *self.affinity_queues.values())
        return 1 + sum(row.rank_of(ticket.rank) for row in rows)

    def _remove(self, ticket: QueuedRequest[T]) -> None:
        self._arrivals.discard(ticket.number)
        self.bytes -= ticket.size
        self._displace(ticket)

    def _place(self, ticket: QueuedRequest[T], line: str | None) -> None:
        ticket.affinity_replica = line
        row = self._shared if line is None else self.affinity_queues.setdefault(line, SortedList())
        row.add(ticket.rank, ticket)
        if line is not None:
            self._in_affinity[ticket] = None
        elif ticket.bypassed >= self._max_bypass:
            self._at_bypass_limit.add(ticket.rank, ticket)

    def _displace(self, ticket: QueuedRequest[T]) -> None:
        if ticket.bypassed >= self._max_bypass:
            self._at_bypass_limit.discard(ticket.rank)
        if ticket.affinity_replica is None:
            self._shared.discard(ticket.rank)
            return
        line = self.affinity_queues[ticket.affinity_replica]
        line.discard(ticket.rank)
        if not len(line):
            del self.affinity_queues[ticket.affinity_replica]
        del self._in_affinity[ticket]
        ticket.affinity_replica = None
