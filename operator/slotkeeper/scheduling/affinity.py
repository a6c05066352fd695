"""Who is next for which free slot: the order of the queue, bent for warm prompts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from slotkeeper.scheduling.prefix_index import Prefixes
from slotkeeper.scheduling.queue import Queue
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import Rank, T, Ticket
from slotkeeper.scheduling.sorted_list import Row


@dataclass(frozen=True, slots=True)
class Affinity:
    """How far the order is bent so that prompts meet the caches that know them."""

    cached_prompts: int = 32
    """Prompts in a replica's cache beside those in its slots. One of 4,096 tokens takes 512 MiB
    with an 8B model's usual cache, and llama-server's --cache-ram is 8 GiB by default."""
    max_line_wait: float = 5.0
    """Seconds in a warm line, after which any slot will do: about what it costs to compute a long
    prompt anew. Without a limit, one whose replica has long answers to give would wait for it
    until its time is over, beside free slots."""
    look_ahead: int = 16
    """A free slot looks for a warm prompt among so many that wait."""
    max_overtaken: int = 16
    """Nobody is overtaken more often."""


class Matcher(Generic[T]):
    """Matches tickets and free slots; `affinity` None: strictly in the order of the queue.

    A replica's cache knows a prompt that begins as one that was sent there. Two measures
    together keep prompts with their caches under load, and neither does alone: a request may
    wait for a replica that knows its prompt, and a free slot looks ahead for one that it knows.
    A line passes by all that stand centrally before it. Joined from the end of a backlog, that
    makes everyone due; then all are taken in order, known or not, which lengthens the backlog. So
    a line is joined only by those among the first `look_ahead`: on arrival, or when they come to
    stand there.
    """

    def __init__(self, queue: Queue[T], affinity: Affinity | None) -> None:
        self.prefixes = Prefixes()
        self._queue = queue
        self._affinity = affinity

    def line_up(self, ticket: Ticket[T], replicas: Collection[Replica], now: float) -> None:
        """Let a ticket that stands centrally join a line, where that is right.

        | replicas that know its prompt        | it                                           |
        |---|---|
        | none                                 | takes any slot                               |
        | some, one with a free slot           | takes that                                   |
        | more than half of all                | takes any slot: most are as good             |
        | some, but `look_ahead` stand before  | takes any slot, or joins when fewer do       |
        | with lines of half their slots       | takes any slot, or joins when one is shorter |
        | with shorter lines                   | waits in the shortest                        |
        """
        if self._affinity is None or self._queue.central > self._affinity.look_ahead:
            return
        self._join(ticket, self.prefixes.holders(ticket.prompt), replicas, now)

    def line_up_window(self, replicas: Mapping[str, Replica], now: float) -> None:
        """Let those join a line that have come among the first of the central queue."""
        if self._affinity is None or not self._queue.central:
            return
        accepting = [replica for replica in replicas.values() if replica.accepting]
        for ticket, holders in self._window(self._affinity.look_ahead):
            if ticket.lined_at is None and ticket.overtaken < self._affinity.max_overtaken:
                self._join(ticket, holders, accepting, now)

    def _join(
        self,
        ticket: Ticket[T],
        holders: Collection[str],
        replicas: Collection[Replica],
        now: float,
    ) -> None:
        if not holders:
            return
        warm = [replica for replica in replicas if replica.name in holders]
        if 2 * len(warm) > len(replicas) or any(replica.free for replica in warm):
            return
        lengths = {each.name: len(self._queue.lines.get(each.name, ())) for each in warm}
        short = [each for each in warm if 2 * lengths[each.name] < each.slots]
        best = min(short, key=lambda each: (lengths[each.name], each.last_claim), default=None)
        if best:
            self._queue.join(ticket, best.name, now)

    def match(self, free: Sequence[Replica]) -> tuple[Ticket[T], Replica] | None:
        """The next ticket and the replica among the `free` ones that gets it, if any is to.

        Each replica, the one with most free slots first, has the first of its line, else the
        first among the central queue's next few that it knows; where there is none, the head of
        the central queue gets the best replica. Nobody is taken before one of a higher priority
        that would take this slot, or before one that was overtaken as often as may be.
        """
        best = _best(free)
        if best is None:
            return None
        if self._affinity is not None:
            known = self._known(free, self._affinity.look_ahead)
            warmest = _best(known)
            if warmest:
                return known[warmest], warmest
        head = self._queue.head
        return (head, best) if head else None

    def claimed(self, ticket: Ticket[T], replica: Replica) -> bool | None:
        """The replica gets the ticket's prompt; whether it knew it, None for one that is short."""
        if self._affinity is None or not ticket.prompt:
            return None
        hit = replica.name in self.prefixes.holders(ticket.prompt)
        capacity = replica.slots + self._affinity.cached_prompts
        self.prefixes.remember(replica.name, ticket.prompt, capacity)
        return hit

    def _known(self, free: Sequence[Replica], look_ahead: int) -> dict[Replica, Ticket[T]]:
        """For each free replica the first ticket whose prompt it knows, where there is one."""
        lines = self._queue.lines
        window = self._window(look_ahead)
        known: dict[Replica, Ticket[T]] = {}
        if not lines and not window:
            return known
        for replica in free:
            line = lines.get(replica.name)
            ticket = self._first_in(line) if line else None
            if ticket is None:
                for other, holders in window:
                    if replica.name in holders:
                        ticket = other
                        break
            if ticket is not None:
                known[replica] = ticket
        return known

    def _window(self, count: int) -> list[tuple[Ticket[T], Collection[str]]]:
        """The first of the central queue that have a prompt and may be taken."""
        front = self._queue.front(count)
        if not front:
            return []
        urgent = front[0].standing.priority
        due = self._queue.due
        return [
            (ticket, self.prefixes.holders(ticket.prompt))
            for ticket in front
            if ticket.prompt
            and ticket.standing.priority == urgent
            and (due is None or ticket.rank <= due.rank)
        ]

    def _first_in(self, line: Row[Rank, Ticket[T]]) -> Ticket[T] | None:
        """The first of a line if it may be taken."""
        first = line.first
        head = self._queue.head
        due = self._queue.due
        if first and head and head.standing.priority > first.standing.priority:
            return None
        return None if first and due and first.rank > due.rank else first


def _best(replicas: Iterable[Replica]) -> Replica | None:
    """The one with most free slots; among equals the one that rested longest."""
    best: Replica | None = None
    most = 0
    for replica in replicas:
        free = replica.slots - len(replica.claims)
        if best is None or free > most or (free == most and replica.last_claim < best.last_claim):
            best = replica
            most = free
    return best
