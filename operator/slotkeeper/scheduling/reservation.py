"""A request's place in the queue, and the slot that is reserved for it."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.replica import FurtherSlot, SlotHold

T = TypeVar("T")

QueueRank = tuple[int, int, int]
"""Minus the priority, the round of the key, the number in order of arrival. The lowest is first."""


PREEMPTIBLE_PRIORITY = -(10**9)
"""Priority of preemptible requests: below all that a request can set in X-Priority."""


class FlowKey(NamedTuple):
    """What a request is ordered by in the queue, before its arrival."""

    priority: int = 0
    """Higher is dispatched first. PREEMPTIBLE_PRIORITY: the request is preemptible."""
    key: str = ""
    """Identifies the client. Within a priority, keys are served round robin."""

    @property
    def preemptible(self) -> bool:
        """Whether its requests rank behind all others, and yield their slots: see preemption.py."""
        return self.priority == PREEMPTIBLE_PRIORITY


@dataclass(slots=True, eq=False)
class QueuedRequest(Generic[T]):
    """A request and its rank, which is fixed on arrival and kept when it is requeued."""

    request: T
    size: int
    arrived: float
    rank: QueueRank
    flow_key: FlowKey
    prefixes: PrefixHashes = ()
    tasks: Tasks = ONE_TASK
    expected_slots: int = 1
    """Slots that it is expected to use, by the replicas that there were on its arrival."""
    preemptible: bool = False
    """It ranks behind all ordinary requests, as its flow key has it."""
    abortable: bool = True
    """llama-server ends it when its connection is closed. Only such a request is preempted."""
    held: bool = False
    """Its key is at its limit of running requests; it takes no part in the queue's order."""
    gathering_on: str | None = None
    """The replica whose slots are kept free for it until there are enough; None: there is none."""
    affinity_replica: str | None = None
    """The replica whose affinity queue it is in; None: the shared queue."""
    affinity_since: float | None = None
    """When it joined an affinity queue, also after it has left it: no request joins one twice."""
    bypassed: int = 0
    """Number of requests that ranked behind it and got a slot that it would have taken."""
    attempts: int = 0
    cached_prefixes: int = 0
    """How many of `prefixes` its replica held in its memory; only known with prompt files."""

    @property
    def number(self) -> int:
        """Its number in order of arrival."""
        return self.rank[2]


@dataclass(slots=True, eq=False, kw_only=True)
class SlotReservation(SlotHold, Generic[T]):
    """A slot with a request that was dispatched here."""

    queued: QueuedRequest[T]
    prefix_hit: bool | None = None
    """Whether the replica's cache held the longest cached prefix of the prompt; None: the prompt is
    short."""
    began: bool = False
    """Its response has begun: from now on llama-server notices at each token whether its connection
    is closed, but before that not until the whole prompt has been processed."""
    further: tuple[FurtherSlot, ...] = ()
    """The other slots of a request that takes several."""
    deferred: int = 0
    """Its tasks that are queued inside the replica, because the replica has too few slots."""

    @property
    def key(self) -> str:
        """Of its request's FlowKey."""
        return self.queued.flow_key.key

    @property
    def holds(self) -> tuple[SlotHold, ...]:
        """All its slots."""
        return (self, *self.further)

    def set_visible(self, at: float) -> None:
        """Set from when llama-server's /slots counts the request for certain."""
        self.visible_at = at
        for hold in self.further:
            hold.visible_at = at
