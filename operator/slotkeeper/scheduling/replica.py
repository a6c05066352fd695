"""A replica's slots and what holds them."""

from dataclasses import dataclass, field
from typing import Any


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
    holds: set[Any] = field(default_factory=set)
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
