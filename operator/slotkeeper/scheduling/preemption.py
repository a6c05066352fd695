"""Preemption: which running requests yield their slots to ordinary ones that are queued.

A preemptible request ranks behind all ordinary ones, whatever their priority. So it gets only slots
that none of them is queued for. When an ordinary one needs a slot and none is free, the preemptible
request that was dispatched last is aborted: the least work is lost. Those whose response has begun
come first, because llama-server releases their slots at the next token; the others' only when their
prompts have been processed. A request that llama-server would process to its end is not aborted:
its work would be lost, and no slot released earlier.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Generic

from slotkeeper.scheduling import gathering
from slotkeeper.scheduling.queue import RequestQueue
from slotkeeper.scheduling.replica import FurtherSlot, Replica
from slotkeeper.scheduling.reservation import QueuedRequest, SlotReservation, T


class Preemption(Generic[T]):
    """The running requests that yield. Without any, nothing here takes time."""

    def __init__(self, queue: RequestQueue[T]) -> None:
        self.running: dict[SlotReservation[T], None] = {}
        """In the order of their dispatch, without those that were aborted."""
        self._queue = queue

    def victims(
        self, replicas: Mapping[str, Replica], reserved: int = 0
    ) -> list[SlotReservation[T]]:
        """Return those to abort for the ordinary requests that dispatch() has left in the queue.

        Further ones are aborted until `reserved` slots are free for the next ordinary requests.

        In the table, the last is the last dispatched of those whose response has begun, or else of
        all. None is aborted in vain, nor for a slot that an aborted request will release anyway.

        | ordinary request                        | who yields                                     |
        |---|---|
        | in the shared queue                     | the last                                       |
        | in the affinity queue of a replica      | the last there, if any                         |
        | gathers slots on a replica              | the last there, if they free enough together   |
        | held, because its key is at its limit   | the last of its key, if they free enough       |
        """
        if not self.running:
            return []
        return _Plan(self._queue, list(self.running), replicas).victims(reserved)


class _Plan(Generic[T]):
    def __init__(
        self,
        queue: RequestQueue[T],
        running: list[SlotReservation[T]],
        replicas: Mapping[str, Replica],
    ) -> None:
        self._queue = queue
        self._replicas = replicas
        self._ready = [each for each in replicas.values() if each.ready]
        last_first = [each for each in reversed(running) if each.replica.ready]
        self._candidates = sorted(last_first, key=lambda each: not each.began)
        self._victims: list[SlotReservation[T]] = []
        self._soon = {each.name: each.soon_free for each in self._ready}
        """Slots that will be free, by replica, less those that requests of this plan get."""

    def victims(self, reserved: int) -> list[SlotReservation[T]]:
        for key in dict.fromkeys(each.key for each in self._candidates):
            self._resume_held(key)
        bound = [*self._queue.gathering.values()]
        for affinity_queue in self._queue.affinity_queues.values():
            bound += affinity_queue
        for queued in sorted(bound, key=lambda each: each.rank):
            name = queued.gathering_on or queued.affinity_replica
            if name in self._soon and not queued.preemptible:
                replica = self._replicas[name]
                if not self._place_on(replica, queued.tasks.slots_on(replica.slots)):
                    # It keeps what is free there, and waits for ordinary requests.
                    self._soon[name] = min(self._soon[name], 0)
        for queued in self._queue.peek(len(self._candidates) + self._free_soon):
            if queued.preemptible or not self._place(queued):
                break
        self._reserve(reserved)
        return self._victims

    def _reserve(self, slots: int) -> None:
        lacking = slots - self._free_soon
        self._free(min(lacking, self._yielding), lambda _: True, reusable=True)

    @property
    def _yielding(self) -> int:
        return sum(len(each.holds) for each in self._candidates)

    @property
    def _free_soon(self) -> int:
        return sum(max(0, count) for count in self._soon.values())

    def _resume_held(self, key: str) -> None:
        """Free what the held requests of a key may then use."""
        releasing: int | None = None
        for lacking in self._queue.slots_lacking(key):
            if releasing is None:
                releasing = self._releasing()[key]
            used = min(lacking, releasing)
            releasing -= used
            if not self._free(lacking - used, lambda each: each.key == key):
                break

    def _place_on(self, replica: Replica, slots: int) -> bool:
        """Free what a request needs on a replica; return whether that is enough."""
        lacking = slots - self._soon[replica.name]
        enough = self._free(lacking, lambda each: each.replica is replica, reusable=True)
        if enough:
            self._soon[replica.name] -= slots
        return enough

    def _place(self, queued: QueuedRequest[T]) -> bool:
        """Free a slot on any replica for a request of the shared queue; return whether one is."""
        # One that needs several is in the shared queue only while all replicas are kept for others.
        if queued.tasks.total > 1:
            return False
        open_ = [each for each in self._ready if gathering.is_open_to(self._queue, queued, each)]
        for replica in open_:
            if self._soon[replica.name] > 0:
                self._soon[replica.name] -= 1
                return True
        last = dict.fromkeys(each.replica for each in self._candidates if each.replica in open_)
        return any(self._place_on(replica, 1) for replica in last)

    def _free(
        self,
        slots: int,
        condition: Callable[[SlotReservation[T]], bool],
        *,
        reusable: bool = False,
    ) -> bool:
        """Abort the last of some requests, if they free enough; return whether they do.

        `reusable`: count their slots as free soon.
        """
        chosen: list[SlotReservation[T]] = []
        for candidate in self._candidates:
            if slots <= 0:
                break
            if condition(candidate):
                chosen.append(candidate)
                slots -= len(candidate.holds)
        if slots > 0:
            return False
        for victim in chosen:
            self._candidates.remove(victim)
            if reusable:
                self._soon[victim.replica.name] += len(victim.holds)
        self._victims += chosen
        return True

    def _releasing(self) -> Counter[str]:
        """Return the slots of aborted requests by key."""
        return Counter(
            hold.key
            for replica in self._replicas.values()
            for hold in replica.holds
            if isinstance(hold, SlotReservation | FurtherSlot) and hold.is_releasing
        )
