"""The one queue and the slots: exact, in order, bounded."""

from collections.abc import Iterator
from typing import Generic

from slotkeeper.api.blocker import Obstacle
from slotkeeper.scheduling.affinity import Affinity, Matcher
from slotkeeper.scheduling.availability import Bounds, Outlook
from slotkeeper.scheduling.prefix_index import Ladder
from slotkeeper.scheduling.queue import Queue
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import Claim, Held, Inherited, Standing, T, Ticket
from slotkeeper.scheduling.service_times import Arrivals, Turnover


class QueueFull(Exception):  # noqa: N818 (a bound that holds is no error)
    """There is no place in the queue; the message names the bound."""


_AFFINITY = Affinity()
_STANDING = Standing()


class Dispatcher(Generic[T]):
    """Hands free slots to those who wait, in the queue's order, bent for warm prompts.

    Whoever calls a method that may free a slot, add one or close one calls `claims` next, and at
    `next_call` at the latest. Then this holds: a request that waits while an accepting replica
    has a free slot waits in the line of another accepting replica, one whose cache knew its
    prompt when it joined, all of whose slots are held, and whose line is not longer than half its
    slots, rounded up; and it has waited there for less than `affinity.max_line_wait`. Nobody is
    overtaken (see Queue) more than `affinity.max_overtaken` times; without affinity, never.
    """

    def __init__(self, bounds: Bounds, affinity: Affinity | None = _AFFINITY) -> None:
        self.bounds = bounds
        self.affinity = affinity
        self.replicas: dict[str, Replica] = {}
        self.queue: Queue[T] = Queue(affinity.max_overtaken if affinity else 0)
        self.matcher = Matcher(self.queue, affinity)
        self.arrivals = Arrivals()
        self.turnover = Turnover()
        self._claims = self._busy = 0
        self._outlook = Outlook()

    # Requests.

    def offer(
        self,
        payload: T,
        size: int,
        now: float,
        *,
        prompt: Ladder = (),
        standing: Standing = _STANDING,
        bounded: bool = True,
    ) -> Ticket[T]:
        """A place in the queue, for a body of `size` bytes. Raises QueueFull.

        The bounds are for those who wait: not for one that a free slot awaits, or (not `bounded`)
        another balancer.
        """
        full = self._full(size) if bounded else None
        if full and (self.queue.head or not any(each.free for each in self.accepting())):
            raise QueueFull(full)  # rather any free slot than no place in a line
        ticket = Ticket(payload, size, now, self.queue.rank(standing), standing, prompt)
        self.queue.put(ticket)
        self.arrivals.note(now)
        if prompt and not full:
            self.matcher.line_up(ticket, list(self.accepting()), now)
        return ticket

    def claims(self, now: float) -> list[Claim[T]]:
        """Give free slots to those that are next."""
        if not len(self.queue):
            return []
        if self.affinity:
            self.queue.leave_lines(now - self.affinity.max_line_wait)
        claims: list[Claim[T]] = []
        while len(self.queue):
            match = self.matcher.match(
                [
                    each
                    for each in self.replicas.values()
                    # As Replica.free says, but this is asked of all of them for each request.
                    if each.accepting and each.slots > len(each.claims)
                ]
            )
            if match is None:
                break
            ticket, replica = match
            self.queue.take(ticket)
            ticket.tries += 1
            hit = self.matcher.claimed(ticket, replica)
            claim = Claim(replica, now, ticket=ticket, hit=hit)
            self._claims += 1
            replica.last_claim = self._claims
            replica.claims.add(claim)
            self._busy += 1
            self.turnover.take(now)
            claims.append(claim)
        self.matcher.line_up_window(self.replicas, now)
        return claims

    def withdraw(self, ticket: Ticket[T]) -> bool:
        """The client gave up; whether the request was waiting."""
        if ticket not in self.queue:
            return False
        self.queue.leave(ticket)
        return True

    def requeue(self, ticket: Ticket[T]) -> None:
        """Back to where its arrival places it, ahead of all that came later.

        Whoever was let in once is not refused now: the bounds are for arrivals.
        """
        self.queue.put(ticket)

    def expired(self, now: float) -> list[Ticket[T]]:
        """Take out those that have waited too long."""
        tickets: list[Ticket[T]] = []
        while ticket := self.queue.oldest:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                break
            self.queue.leave(ticket)
            tickets.append(ticket)
        return tickets

    def next_deadline(self) -> float | None:
        """When the next one will have waited too long; None while nobody waits.

        That is always the oldest.
        """
        ticket = self.queue.oldest
        return None if ticket is None else self._outlook.deadline(ticket.arrived, self.bounds)

    def next_call(self) -> float | None:
        """When to call `expired` and `claims` even if nothing happens; None: never."""
        deadline = self.next_deadline()
        since = self.queue.lined_since
        if deadline is None or since is None or self.affinity is None:
            return deadline
        return min(deadline, since + self.affinity.max_line_wait)

    def hand_over(self) -> list[Ticket[T]]:
        """Take out all that wait, in order: another balancer gives them their slots."""
        tickets = list(self.queue)
        for ticket in tickets:
            self.queue.leave(ticket)
        return tickets

    # Slots.

    def finish(self, claim: Held, now: float) -> None:
        """The slot is free. A claim that is over already stays so."""
        if claim.over:
            return
        claim.over = True
        replica = claim.replica
        replica.claims.remove(claim)
        self._busy -= 1
        if isinstance(claim, Claim):
            self.turnover.give_back(now)
        if replica.gone and not replica.claims:
            self.replicas.pop(replica.name, None)

    def abandon(self, claim: Claim[T], now: float) -> None:
        """The request is over, its slot is not free before llama-server has let go of it."""
        if claim.abandoned_at is None:
            claim.abandoned_at = now

    def inherit(self, name: str, count: int, now: float) -> None:
        """So many slots of a replica are held by requests that did not come through here.

        They are of a balancer that was here before, or of whoever goes past this one.
        """
        replica = self.replicas[name]
        replica.claims.update(Inherited(replica, now, abandoned_at=now) for _ in range(count))
        self._busy += count

    # Replicas.

    def add(self, name: str, slots: int, now: float) -> Replica:
        """A replica may be used with `slots` slots; also one that is known, drained or leaving."""
        replica = self.replicas.setdefault(name, Replica(name, slots))
        replica.slots = slots
        replica.accepting = True
        replica.gone = False
        # A line that was short enough for its slots may not be so any more.
        self.queue.dissolve(name)
        self._note_usable(now)
        return replica

    def drain(self, name: str, now: float) -> None:
        """A replica gets nothing new. What it has goes on.

        What it inherited is forgotten: it is counted anew should the replica come back.
        """
        if name in self.replicas:
            replica = self.replicas[name]
            replica.accepting = False
            for claim in [each for each in replica.claims if isinstance(each, Inherited)]:
                self.finish(claim, now)
            self.queue.dissolve(name)
            # Should it come back, then maybe as a new process.
            self.matcher.prefixes.forget(name)
            self._note_usable(now)

    def remove(self, name: str, now: float) -> None:
        """A replica leaves for good. What it has goes on, and keeps its slots till then."""
        self.drain(name, now)
        replica = self.replicas.get(name)
        if replica and not replica.claims:
            del self.replicas[name]
        elif replica:
            replica.gone = True

    def hinder(self, obstacle: Obstacle | None, now: float) -> None:
        """This keeps replicas from starting, as far as anybody knows; None: nothing does."""
        self._outlook.hinder(obstacle, now)

    # Numbers.

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self.queue)

    @property
    def waiting_bytes(self) -> int:
        """Their bodies together."""
        return self.queue.bytes

    @property
    def busy(self) -> int:
        """Slots that are held."""
        return self._busy

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
        return self._outlook.usable

    @property
    def obstacle(self) -> Obstacle | None:
        """What keeps replicas from starting, where there is none and something is known to."""
        return None if self.usable else self._outlook.obstacle

    def held(self) -> dict[str, int]:
        """Held slots by replica, of those that have any."""
        return {name: replica.held for name, replica in self.replicas.items() if replica.held}

    def accepting(self) -> Iterator[Replica]:
        """The replicas that take requests."""
        return (replica for replica in self.replicas.values() if replica.accepting)

    def oldest_wait(self, now: float) -> float:
        """Seconds that the oldest has waited; 0 where nobody waits."""
        oldest = self.queue.oldest
        return now - oldest.arrived if oldest else 0.0

    def retry_after(self, now: float) -> float:
        """Seconds after which a refused client may find a place or a slot: 1 or more.

        As many slots must come free as requests wait, at the pace of late; at most the longest
        that anyone waits here.
        """
        if not self.usable:
            return self._outlook.retry_after
        needed = self.turnover.seconds_for(self.waiting + 1, now) or 1.0
        return min(max(1.0, needed), self.bounds.max_wait_no_replica)

    def _full(self, size: int) -> str | None:
        bounds = self.bounds
        queue = self.queue
        if len(queue) >= bounds.max_waiting:
            return f"{bounds.max_waiting} requests are waiting already"
        if queue.bytes + size > bounds.max_waiting_bytes:
            return f"{queue.bytes} bytes of requests are waiting already"
        return None

    def _note_usable(self, now: float) -> None:
        usable = any(r.accepting and r.slots > 0 for r in self.replicas.values())
        self._outlook.note_usable(usable, now)
