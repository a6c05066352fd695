"""A request's place in the queue, and the slot that it gets."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.replica import SlotHold

T = TypeVar("T")

QueueRank = tuple[int, int, int]
"""Where a ticket stands: minus its priority, its key's round, its number. The lowest is first."""


class FlowKey(NamedTuple):
    """Whose request it is, and how urgent."""

    priority: int = 0
    """Higher goes first."""
    key: str = ""
    """Within a priority the keys take turns."""


@dataclass(slots=True, eq=False)
class QueuedRequest(Generic[T]):
    """A request's place, fixed on arrival, also when it must be tried again."""

    request: T
    size: int
    arrived: float
    rank: QueueRank
    flow_key: FlowKey
    prefixes: PrefixHashes = ()
    affinity_replica: str | None = None
    """The replica whose warm line it waits in; None: the central queue."""
    affinity_since: float | None = None
    """Since when it has been in a line, or was: nobody joins one twice."""
    bypassed: int = 0
    """How many that stood behind it got a slot while it waited."""
    attempts: int = 0

    @property
    def number(self) -> int:
        """Its place in the order of arrival."""
        return self.rank[2]


@dataclass(slots=True, eq=False, kw_only=True)
class SlotReservation(SlotHold, Generic[T]):
    """One slot, held by a request that has come through here."""

    queued: QueuedRequest[T]
    prefix_hit: bool | None = None
    """The replica's cache holds the prompt's longest known prefix; None: the prompt has none."""
