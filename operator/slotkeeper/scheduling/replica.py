"""A replica's slots and what holds them."""

import math
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Replica:
    """One llama-server as the dispatcher sees it."""

    name: str
    """Its address as `host:port`."""
    slots: int
    ready: bool = True
    """It may get new requests. Those that it has run on where it may not."""
    removed: bool = False
    """It left for good, and is forgotten with its last claim."""
    holds: set["SlotHold"] = field(default_factory=set)
    """What holds its slots: ticket.Held."""
    last_dispatch: int = 0
    """The number of its newest claim: among equals the one that rested longest is next."""

    @property
    def free(self) -> int:
        """Slots for new requests."""
        return max(0, self.slots - len(self.holds)) if self.ready else 0

    @property
    def busy(self) -> int:
        """Slots with a request on them, or one that llama-server has not let go of yet."""
        return len(self.holds)


@dataclass(slots=True, eq=False)
class SlotHold:
    """One slot, held: by a Claim, or by a request of before that another balancer sent there."""

    replica: Replica
    reserved_at: float
    visible_at: float = math.inf
    """When llama-server's /slots is sure to count the request; never, if it needs no slot there."""
    aborted_at: float | None = None
    """Since when its request is over here though llama-server may still be at it."""
    released: bool = False


@dataclass(slots=True, eq=False)
class AdoptedSlot(SlotHold):
    """One slot, held by a request that runs since before this balancer counted the replica's."""

    visible_at: float = -math.inf
