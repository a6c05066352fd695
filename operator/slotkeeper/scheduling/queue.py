"""The one queue: its order, its lines for warm prompts, and who was overtaken how often."""

from collections.abc import Iterator
from typing import Generic

from slotkeeper.scheduling.fairness import Rounds
from slotkeeper.scheduling.reservation import Rank, Standing, T, Ticket
from slotkeeper.scheduling.sorted_list import Row


class Queue(Generic[T]):
    """All that wait have one order: by priority, then by turns among keys, then by arrival.

    Some stand in a replica's line, since its cache holds their prompt's beginning; the others,
    the central ones, take any slot. One is overtaken when another that stands behind it in the
    one order gets a slot that it would have taken: for a central one that is any slot; one in a
    line is not overtaken by what starts elsewhere. One that was overtaken `max_overtaken` times
    is due, and nobody who stands behind it may be taken before it: to `take` nobody behind `due`
    is what makes the limit exact.

    Counting costs a step for each one overtaken, which is `max_overtaken` steps a request in all.
    """

    def __init__(self, max_overtaken: int) -> None:
        self.bytes = 0
        self._max_overtaken = max_overtaken
        self._central: Row[Rank, Ticket[T]] = Row()
        self.lines: dict[str, Row[Rank, Ticket[T]]] = {}
        """By replica; only those in which there is somebody."""
        self._lined: dict[Ticket[T], None] = {}  # those in lines, as they joined
        self._due: Row[Rank, Ticket[T]] = Row()
        self._arrivals: Row[int, Ticket[T]] = Row()
        self._rounds = Rounds()
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def __contains__(self, ticket: Ticket[T]) -> bool:
        return ticket.number in self._arrivals

    def __iter__(self) -> Iterator[Ticket[T]]:
        """All that wait, in order."""
        return iter(sorted(self._arrivals, key=lambda ticket: ticket.rank))

    # Coming and going.

    def rank(self, standing: Standing) -> Rank:
        """The place of a request that arrives."""
        self._numbers += 1
        return -standing.priority, self._rounds.next(standing), self._numbers

    def put(self, ticket: Ticket[T]) -> None:
        """The ticket waits from now on, centrally."""
        self._arrivals.add(ticket.number, ticket)
        self._rounds.enter(ticket.standing, ticket.rank[1])
        self.bytes += ticket.size
        self._place(ticket, None)

    def join(self, ticket: Ticket[T], line: str, now: float) -> None:
        """A ticket that waits centrally steps into the line of a replica."""
        self._displace(ticket)
        ticket.lined_at = now
        self._place(ticket, line)

    def leave(self, ticket: Ticket[T]) -> None:
        """The ticket waits no more, and gets no slot."""
        self._remove(ticket)
        self._rounds.leave(ticket.standing, served=False)

    def take(self, ticket: Ticket[T]) -> None:
        """The ticket gets a slot, before all that stand ahead of it centrally."""
        self._remove(ticket)
        overtaken = self._central.front(self._central.before(ticket.rank))
        if not overtaken:
            self._rounds.serve(ticket.standing, ticket.rank[1])
        self._rounds.leave(ticket.standing, served=True)
        for other in overtaken:
            other.overtaken += 1
            if other.overtaken == self._max_overtaken:
                self._due.add(other.rank, other)

    def dissolve(self, line: str) -> None:
        """All that stand in a replica's line stand centrally from now on."""
        for ticket in list(self.lines.get(line, ())):
            self._displace(ticket)
            self._place(ticket, None)

    def leave_lines(self, joined: float) -> None:
        """Those that joined a line at this time or before stand centrally from now on."""
        while (since := self.lined_since) is not None and since <= joined:
            ticket = next(iter(self._lined))
            self._displace(ticket)
            self._place(ticket, None)

    # Looking.

    @property
    def oldest(self) -> Ticket[T] | None:
        """The one that arrived first."""
        return self._arrivals.first

    @property
    def lined_since(self) -> float | None:
        """When the one that has been in a line for longest joined it."""
        return next(iter(self._lined)).lined_at if self._lined else None

    @property
    def head(self) -> Ticket[T] | None:
        """The first of those that take any slot."""
        return self._central.first

    @property
    def due(self) -> Ticket[T] | None:
        """The first of those that must not be overtaken any more: it stands centrally."""
        return self._due.first

    @property
    def central(self) -> int:
        """How many take any slot."""
        return len(self._central)

    def front(self, count: int) -> list[Ticket[T]]:
        """The first `count` of those that take any slot."""
        return self._central.front(count)

    def position(self, ticket: Ticket[T]) -> int:
        """1 for the first of all that wait; 0 for one that does not wait."""
        if ticket not in self:
            return 0
        rows = (self._central, *self.lines.values())
        return 1 + sum(row.before(ticket.rank) for row in rows)

    def _remove(self, ticket: Ticket[T]) -> None:
        self._arrivals.discard(ticket.number)
        self.bytes -= ticket.size
        self._displace(ticket)

    def _place(self, ticket: Ticket[T], line: str | None) -> None:
        ticket.line = line
        row = self._central if line is None else self.lines.setdefault(line, Row())
        row.add(ticket.rank, ticket)
        if line is not None:
            self._lined[ticket] = None
        elif ticket.overtaken >= self._max_overtaken:
            self._due.add(ticket.rank, ticket)

    def _displace(self, ticket: Ticket[T]) -> None:
        if ticket.overtaken >= self._max_overtaken:
            self._due.discard(ticket.rank)
        if ticket.line is None:
            self._central.discard(ticket.rank)
            return
        line = self.lines[ticket.line]
        line.discard(ticket.rank)
        if not len(line):
            del self.lines[ticket.line]
        del self._lined[ticket]
        ticket.line = None
