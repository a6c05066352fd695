"""Prefix-cache affinity: which queued request is next for which free slot."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from slotkeeper.llamacpp.tasks import ONE_TASK
from slotkeeper.scheduling import gathering
from slotkeeper.scheduling.prefix_index import PrefixHashes, PrefixIndex
from slotkeeper.scheduling.prompt_files import PromptFileIndex
from slotkeeper.scheduling.queue import RequestQueue
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import QueuedRequest, QueueRank, T
from slotkeeper.scheduling.sorted_list import SortedList


@dataclass(frozen=True, slots=True)
class AffinityLimits:
    """How far dispatch may deviate from the queue's order for prefix cache hits."""

    cached_prompts: int = 32
    """Prompts in a replica's prompt cache, beside those in its slots. A prompt of 4,096 tokens
    takes 512 MiB with an 8B model's usual KV cache, and llama-server's --cache-ram is 8 GiB by
    default."""
    max_affinity_wait: float = 5.0
    """Maximum seconds in an affinity queue; then the request takes any slot. About the time to
    compute a long prompt again. Without a limit, a request whose replica generates long responses
    would wait for it until its queue timeout, while other replicas have free slots."""
    lookahead: int = 16
    """Requests at the front of the shared queue in which a free slot searches for a prefix cache
    hit."""
    max_bypass: int = 16
    """Maximum number of times that a request is bypassed."""


class AffinityScheduler(Generic[T]):
    """Matches queued requests and free slots; with `limits` None, strictly in the queue's order.

    A replica has a prefix cache hit for a prompt that starts like one that was sent to it before.
    Two measures together keep the hit rate high under load, and neither does alone: a request may
    wait in the affinity queue of a replica that holds its prefix, and a free slot looks ahead in
    the shared queue for a request whose prefix its replica holds.

    A request that is dispatched from an affinity queue bypasses all that rank before it in the
    shared queue. If requests joined affinity queues from the end of a backlog, the whole backlog
    would reach the bypass limit. Then all requests are dispatched in order, with or without a hit,
    which lengthens the backlog. So a request joins an affinity queue only from among the first
    `lookahead` of the shared queue: on arrival, or when it has moved up to there.
    """

    def __init__(self, queue: RequestQueue[T], limits: AffinityLimits | None) -> None:
        self.prefix_index = PrefixIndex()
        self.files: PromptFileIndex | None = None
        """What replicas can restore; None: nothing is restored."""
        self._queue = queue
        self._limits = limits

    def join_affinity_queue(
        self, queued: QueuedRequest[T], replicas: Collection[Replica], now: float
    ) -> None:
        """Move a request from the shared queue to an affinity queue, by this table.

        | ready `replicas` that hold its prefix        | the request                               |
        |---|---|
        | none                                         | takes any slot                            |
        | at least one with a free slot                | takes that slot                           |
        | more than half of all                        | takes any slot: most of them are hits     |
        | some, but `lookahead` requests are before it | takes any slot, or joins once fewer are   |
        | some, but a free one restores as much        | takes any slot                            |
        | some, with affinity queues of half the slots | takes any slot, or joins once one shrinks |
        | some, with shorter affinity queues           | joins the shortest                        |
        """
        # A preemptible request waits for no replica: it would lose the slot again.
        if self._limits is None or queued.preemptible:
            return
        if self._queue.shared_before(queued) >= self._limits.lookahead:
            return
        self._join(queued, self.prefix_index.replicas_with(queued.prefixes), replicas, now)

    def join_from_window(self, replicas: Mapping[str, Replica], now: float) -> None:
        """Move requests that are now among the first of the shared queue to affinity queues."""
        head = self._queue.head
        if self._limits is None or head is None or head.preemptible:
            return
        ready = [replica for replica in replicas.values() if replica.ready]
        for queued, cached_on in self._candidates(self._limits.lookahead):
            joins = queued.affinity_since is None and queued.tasks is ONE_TASK
            if joins and queued.bypassed < self._limits.max_bypass:
                self._join(queued, cached_on, ready, now)

    def _join(
        self,
        queued: QueuedRequest[T],
        cached_on: Collection[str],
        replicas: Collection[Replica],
        now: float,
    ) -> None:
        if not cached_on:
            return
        kept = self._queue.gathering
        hits = [each for each in replicas if each.name in cached_on and each.name not in kept]
        if 2 * len(hits) > len(replicas) or any(replica.free for replica in hits):
            return
        if self.files and self._can_restore(self.files, queued, hits, replicas, now):
            return
        lengths = {each.name: len(self._queue.affinity_queues.get(each.name, ())) for each in hits}
        short = [each for each in hits if 2 * lengths[each.name] < each.slots]
        best = min(short, key=lambda each: (lengths[each.name], each.last_dispatch), default=None)
        if best:
            self._queue.move_to_affinity(queued, best.name, now)

    def _can_restore(
        self,
        files: PromptFileIndex,
        queued: QueuedRequest[T],
        hits: Collection[Replica],
        replicas: Collection[Replica],
        now: float,
    ) -> bool:
        """Whether a free replica can restore as much of a prompt as those of `hits` hold."""
        held = max(
            (self.prefix_index.held_by(each.name, queued.prefixes) for each in hits), default=0
        )
        return any(
            replica.free
            and files.plan(replica.name, queued.prefixes, queued.size, max(0, held - 1), now)
            for replica in replicas
        )

    def match(
        self, free: Sequence[Replica], replicas: Iterable[Replica]
    ) -> tuple[QueuedRequest[T], Replica] | None:
        """Return the next request and the replica among `free` that it is dispatched to, or None.

        `free` are those of `replicas` with a free slot.

        Replicas with more free slots come first. A replica takes the head of its affinity queue,
        else the first of the shared queue's first `lookahead` requests whose prefix it holds. If
        no replica finds one, the head of the shared queue goes to the replica with the most free
        slots. No request is dispatched before one of a higher priority that would take this slot,
        or before one that is at its bypass limit. For requests that need several slots, see
        gathering.py.
        """
        head = self._queue.head
        if self._queue.gathering or (head and head.tasks is not ONE_TASK):
            return self._match_gathering(free, replicas)
        return self._match(free, free)

    def _match_gathering(
        self, free: Sequence[Replica], replicas: Iterable[Replica]
    ) -> tuple[QueuedRequest[T], Replica] | None:
        queue = self._queue
        while True:
            if gathered := gathering.complete(queue, free):
                return gathered
            head = queue.head
            if head is None:
                # The affinity queues of the other replicas may have requests still.
                others = [each for each in free if each.name not in queue.gathering]
                return self._match(others, others)
            open_ = [each for each in free if gathering.is_open_to(queue, head, each)]
            fitting = [each for each in open_ if gathering.fits(head, each)]
            if fitting or head.tasks is ONE_TASK:
                cached = [each for each in open_ if each.name not in queue.gathering]
                return self._match(fitting, cached)
            if not gathering.begin(queue, head, replicas):
                return None

    def _match(
        self, free: Sequence[Replica], cached: Sequence[Replica]
    ) -> tuple[QueuedRequest[T], Replica] | None:
        """Match the head of the shared queue with `free`, or any prefix cache hit with `cached`."""
        best = _best(free)
        if best is None:
            return None
        if self._limits is not None:
            hits = self._hits(cached, self._limits.lookahead)
            best_hit = _best(hits)
            if best_hit:
                return hits[best_hit], best_hit
        head = self._queue.head
        return (head, best) if head else None

    def record_prefix(self, queued: QueuedRequest[T], replica: Replica) -> bool | None:
        """Record that a request's prompt is sent to `replica`.

        Returns whether that is a prefix cache hit; None for a short prompt, or without affinity.
        """
        if not queued.prefixes:
            return None
        if self.files:
            queued.cached_prefixes = self.prefix_index.held_by(replica.name, queued.prefixes)
        limits = self._limits or AffinityLimits()
        hit = replica.name in self.prefix_index.replicas_with(queued.prefixes)
        capacity = replica.slots + limits.cached_prompts
        self.prefix_index.record(replica.name, queued.prefixes, capacity)
        return hit if self._limits else None

    def record_primed(self, replica: str, prefixes: PrefixHashes) -> None:
        """Record that a replica has computed a prompt for no request."""
        limits = self._limits or AffinityLimits()
        self.prefix_index.record(replica, prefixes, max(1, limits.cached_prompts))

    def _hits(self, free: Sequence[Replica], lookahead: int) -> dict[Replica, QueuedRequest[T]]:
        """Return the first request with a prefix cache hit for each free replica that has one."""
        affinity_queues = self._queue.affinity_queues
        window = self._candidates(lookahead)
        hits: dict[Replica, QueuedRequest[T]] = {}
        if not affinity_queues and not window:
            return hits
        for replica in free:
            affinity_queue = affinity_queues.get(replica.name)
            queued = self._head_of(affinity_queue) if affinity_queue else None
            if queued is None:
                for candidate, cached_on in window:
                    if replica.name in cached_on and (
                        candidate.tasks is ONE_TASK or gathering.fits(candidate, replica)
                    ):
                        queued = candidate
                        break
            if queued is not None:
                hits[replica] = queued
        return hits

    def _candidates(self, count: int) -> list[tuple[QueuedRequest[T], Collection[str]]]:
        """Return those of the shared queue's first `count` requests that may be dispatched now.

        Only requests with prefix hashes, each with the names of the replicas that hold its prefix.
        """
        front = self._queue.peek(count)
        if not front:
            return []
        priority = front[0].flow_key.priority
        at_limit = self._queue.at_bypass_limit
        return [
            (queued, self.prefix_index.replicas_with(queued.prefixes))
            for queued in front
            if queued.prefixes
            and queued.flow_key.priority == priority
            and (at_limit is None or queued.rank <= at_limit.rank)
        ]

    def _head_of(
        self, affinity_queue: SortedList[QueueRank, QueuedRequest[T]]
    ) -> QueuedRequest[T] | None:
        """Return the head of an affinity queue, or None if it may not be dispatched now."""
        candidate = affinity_queue.head
        head = self._queue.head
        at_limit = self._queue.at_bypass_limit
        if candidate and head and head.flow_key.priority > candidate.flow_key.priority:
            return None
        return None if candidate and at_limit and candidate.rank > at_limit.rank else candidate


def _best(replicas: Iterable[Replica]) -> Replica | None:
    """Return the replica with the most free slots; among equals the least recently used."""
    best: Replica | None = None
    most_free = 0
    for replica in replicas:
        free = replica.slots - len(replica.holds)
        if (
            best is None
            or free > most_free
            or (free == most_free and replica.last_dispatch < best.last_dispatch)
        ):
            best = replica
            most_free = free
    return best
