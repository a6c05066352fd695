"""Who is next for which free slot: the order of the queue, bent for warm prompts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from slotkeeper.scheduling.prefix_index import PrefixIndex
from slotkeeper.scheduling.queue import RequestQueue
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import QueuedRequest, QueueRank, T
from slotkeeper.scheduling.sorted_list import SortedList


@dataclass(frozen=True, slots=True)
class Affinity:
    """How far the order is bent so that prompts meet the caches that know them."""

    cached_prompts: int = 32
    """Prompts in a replica's cache beside those in its slots. One of 4,096 tokens takes 512 MiB
    with an 8B model's usual cache, and llama-server's --cache-ram is 8 GiB by default."""
    max_affinity_wait: float = 5.0
    """Seconds in a warm line, after which any slot will do: about what it costs to compute a long
    prompt anew. Without a limit, one whose replica has long answers to give would wait for it
    until its time is over, beside free slots."""
    lookahead: int = 16
    """A free slot looks for a warm prompt among so many that wait."""
    max_bypass: int = 16
    """Nobody is overtaken more often."""


class AffinityScheduler(Generic[T]):
    """Matches tickets and free slots; `affinity` None: strictly in the order of the queue.

    A replica's cache knows a prompt that begins as one that was sent there. Two measures
    together keep prompts with their caches under load, and neither does alone: a request may
    wait for a replica that knows its prompt, and a free slot looks ahead for one that it knows.
    A line passes by all that stand centrally before it. Joined from the end of a backlog, that
    makes everyone due; then all are taken in order, known or not, which lengthens the backlog. So
    a line is joined only by those among the first `look_ahead`: on arrival, or when they come to
    stand there.
    """

    def __init__(self, queue: RequestQueue[T], affinity: Affinity | None) -> None:
        self.prefixes = PrefixIndex()
        self._queue = queue
        self._affinity = affinity

    def join_affinity_queue(
        self, ticket: QueuedRequest[T], replicas: Collection[Replica], now: float
    ) -> None:
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
        if self._affinity is None or self._queue.shared > self._affinity.lookahead:
            return
        self._join(ticket, self.prefixes.replicas_with(ticket.prefixes), replicas, now)

    def join_from_window(self, replicas: Mapping[str, Replica], now: float) -> None:
        """Let those join a line that have come among the first of the central queue."""
        if self._affinity is None or not self._queue.shared:
            return
        accepting = [replica for replica in replicas.values() if replica.ready]
        for ticket, holders in self._candidates(self._affinity.lookahead):
            if ticket.affinity_since is None and ticket.bypassed < self._affinity.max_bypass:
                self._join(ticket, holders, accepting, now)

    def _join(
        self,
        ticket: QueuedRequest[T],
        holders: Collection[str],
        replicas: Collection[Replica],
        now: float,
    ) -> None:
        if not holders:
            return
        warm = [replica for replica in replicas if replica.name in holders]
        if 2 * len(warm) > len(replicas) or any(replica.free for replica in warm):
            return
        lengths = {each.name: len(self._queue.affinity_queues.get(each.name, ())) for each in warm}
        short = [each for each in warm if 2 * lengths[each.name] < each.slots]
        best = min(short, key=lambda each: (lengths[each.name], each.last_dispatch), default=None)
        if best:
            self._queue.move_to_affinity(ticket, best.name, now)

    def match(self, free: Sequence[Replica]) -> tuple[QueuedRequest[T], Replica] | None:
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
            known = self._known(free, self._affinity.lookahead)
            warmest = _best(known)
            if warmest:
                return known[warmest], warmest
        head = self._queue.head
        return (head, best) if head else None

    def record_prefix(self, ticket: QueuedRequest[T], replica: Replica) -> bool | None:
        """The replica gets the ticket's prompt; whether it knew it, None for one that is short."""
        if self._affinity is None or not ticket.prefixes:
            return None
        hit = replica.name in self.prefixes.replicas_with(ticket.prefixes)
        capacity = replica.slots + self._affinity.cached_prompts
        self.prefixes.remember(replica.name, ticket.prefixes, capacity)
        return hit

    def _known(self, free: Sequence[Replica], look_ahead: int) -> dict[Replica, QueuedRequest[T]]:
        """For each free replica the first ticket whose prompt it knows, where there is one."""
        lines = self._queue.affinity_queues
        window = self._candidates(look_ahead)
        known: dict[Replica, QueuedRequest[T]] = {}
        if not lines and not window:
            return known
        for replica in free:
            line = lines.get(replica.name)
            ticket = self._head_of(line) if line else None
            if ticket is None:
                for other, holders in window:
                    if replica.name in holders:
                        ticket = other
                        break
            if ticket is not None:
                known[replica] = ticket
        return known

    def _candidates(self, count: int) -> list[tuple[QueuedRequest[T], Collection[str]]]:
        """The first of the central queue that have a prompt and may be taken."""
        front = self._queue.peek(count)
        if not front:
            return []
        urgent = front[0].flow_key.priority
        due = self._queue.at_bypass_limit
        return [
            (ticket, self.prefixes.replicas_with(ticket.prefixes))
            for ticket in front
            if ticket.prefixes
            and ticket.flow_key.priority == urgent
            and (due is None or ticket.rank <= due.rank)
        ]

    def _head_of(self, line: SortedList[QueueRank, QueuedRequest[T]]) -> QueuedRequest[T] | None:
        """The first of a line if it may be taken."""
        first = line.first
        head = self._queue.head
        due = self._queue.at_bypass_limit
        if first and head and head.flow_key.priority > first.flow_key.priority:
            return None
        return None if first and due and first.rank > due.rank else first


def _best(replicas: Iterable[Replica]) -> Replica | None:
    """The one with most free slots; among equals the one that rested longest."""
    best: Replica | None = None
    most = 0
    for replica in replicas:
        free = replica.slots - len(replica.holds)
        if (
            best is None
            or free > most
            or (free == most and replica.last_dispatch < best.last_dispatch)
        ):
            best = replica
            most = free
    return best
