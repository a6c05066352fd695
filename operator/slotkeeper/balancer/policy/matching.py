"""Who is next for which free slot: the order of the queue, bent for warm prompts."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from slotkeeper.balancer.policy.prefixes import Ladder, Prefixes
from slotkeeper.balancer.policy.queue import Queue
from slotkeeper.balancer.policy.replica import Replica
from slotkeeper.balancer.policy.ticket import T, Ticket


@dataclass(frozen=True, slots=True)
class Affinity:
    """How far the order is bent so that prompts meet the caches that know them."""

    cached_prompts: int = 32
    """Prompts in a replica's cache beside those in its slots. One of 4,096 tokens takes 512 MiB
    with an 8B model's usual cache, and llama-server's --cache-ram is 8 GiB by default."""
    look_ahead: int = 16
    """A free slot looks for a warm prompt among so many that wait."""
    max_overtaken: int = 16
    """Nobody is overtaken more often."""


class Matcher(Generic[T]):
    """Matches tickets and free slots; `affinity` None: strictly in the order of the queue.

    A replica's cache knows a prompt that begins as one that was sent there. Two measures
    together keep prompts with their caches under load, and neither does alone: a request may
    wait for a replica that knows its prompt, and a free slot looks ahead for one that it knows.
    A line passes by all that wait centrally. In a backlog that makes everyone due, then all are
    taken in order wherever they are known or not, which lengthens the backlog: so lines are
    joined only while so few wait centrally that looking ahead sees them all.
    """

    def __init__(self, queue: Queue[T], affinity: Affinity | None) -> None:
        self.prefixes = Prefixes()
        self._queue = queue
        self._affinity = affinity

    def line_for(self, prompt: Ladder, replicas: Collection[Replica]) -> str | None:
        """The replica in whose line a new request waits; None: it takes any slot.

        | replicas that know its prompt        | it                                     |
        |---|---|
        | none                                 | takes any slot                         |
        | some, one with a free slot           | takes that                             |
        | more than half of all                | takes any slot: most are as good       |
        | some, but `look_ahead` wait for any  | takes any slot: a free one looks ahead |
        | with lines of half their slots       | takes any slot                         |
        | with shorter lines                   | waits in the shortest                  |
        """
        if self._affinity is None or not prompt:
            return None
        if self._queue.central >= self._affinity.look_ahead:
            return None
        holders = self.prefixes.holders(prompt)
        warm = [replica for replica in replicas if replica.name in holders]
        if 2 * len(warm) > len(replicas) or any(replica.free for replica in warm):
            return None
        lengths = {name: len(line) for name, line in self._queue.lines.items()}
        short = [each for each in warm if 2 * lengths.get(each.name, 0) < each.slots]
        best = min(
            short, key=lambda each: (lengths.get(each.name, 0), each.last_claim), default=None
        )
        return best.name if best else None

    def match(self, free: Iterable[Replica]) -> tuple[Ticket[T], Replica] | None:
        """The next ticket and the replica among the `free` ones that gets it, if any is to.

        Each replica, the one with most free slots first, has the first of its line, else the
        first among the central queue's next few that it knows; where there is none, the head of
        the central queue gets the best replica. Nobody is taken before one of a higher priority
        that would take this slot, or before one that was overtaken as often as may be.
        """
        ordered = sorted(free, key=lambda replica: (-replica.free, replica.last_claim))
        if not ordered:
            return None
        if self._affinity is not None:
            window = self._window(self._affinity.look_ahead)
            for replica in ordered:
                ticket = self._warm_for(replica, window)
                if ticket:
                    return ticket, replica
        head = self._queue.head
        return (head, ordered[0]) if head else None

    def claimed(self, ticket: Ticket[T], replica: Replica) -> bool | None:
        """The replica gets the ticket's prompt; whether it knew it, None for one that is short."""
        if self._affinity is None or not ticket.prompt:
            return None
        hit = replica.name in self.prefixes.holders(ticket.prompt)
        capacity = replica.slots + self._affinity.cached_prompts
        self.prefixes.remember(replica.name, ticket.prompt, capacity)
        return hit

    def _window(self, count: int) -> Sequence[tuple[Ticket[T], Collection[str]]]:
        front = self._queue.front(count)
        return [
            (ticket, self.prefixes.holders(ticket.prompt))
            for ticket in front
            if ticket.prompt
            and ticket.standing.priority == front[0].standing.priority
            and self._may_go(ticket)
        ]

    def _warm_for(
        self, replica: Replica, window: Sequence[tuple[Ticket[T], Collection[str]]]
    ) -> Ticket[T] | None:
        line, head = self._queue.lines.get(replica.name), self._queue.head
        first = line.first if line else None
        urgent = first and (head is None or first.standing.priority >= head.standing.priority)
        if first and urgent and self._may_go(first):
            return first
        return next((ticket for ticket, holders in window if replica.name in holders), None)

    def _may_go(self, ticket: Ticket[T]) -> bool:
        due = self._queue.due
        return due is None or ticket.rank <= due.rank
