"""A replica's slots and what holds them."""

import math
from dataclasses import dataclass, field

from typing_extensions import override


@dataclass(slots=True, eq=False)
class Replica:
    """One llama-server, as the dispatcher counts its slots."""

    name: str
    """Its address as `host:port`."""
    slots: int
    ready: bool = True
    """Whether it accepts new requests. Running requests continue either way."""
    removed: bool = False
    """Whether it was removed for good; it is deleted with its last hold."""
    holds: set["SlotHold"] = field(default_factory=set)
    """One for each busy slot."""
    preemptible: int = 0
    """Busy slots with a preemptible request on them, until they are released."""
    last_dispatch: int = 0
    """Sequence number of its last reservation: among equals the least recently used is next."""

    @property
    def free(self) -> int:
        """Number of slots for new requests."""
        return max(0, self.slots - len(self.holds)) if self.ready else 0

    @property
    def busy(self) -> int:
        """Number of slots with a request on them; an aborted one counts until it is released."""
        return len(self.holds)

    @property
    def busy_ordinary(self) -> int:
        """Number of those whose request is not preemptible."""
        return len(self.holds) - self.preemptible

    @property
    def yielding(self) -> int:
        """Number of busy slots that an ordinary request may get at once."""
        return sum(hold.yields for hold in self.holds) if self.preemptible else 0

    @property
    def soon_free(self) -> int:
        """Number of free slots once those of aborted requests are released, if it is ready.

        Negative if it has fewer slots than before, and the other requests still need more.
        """
        return self.slots - sum(not hold.is_releasing for hold in self.holds)


@dataclass(slots=True, eq=False)
class SlotHold:
    """One busy slot: a SlotReservation or an AdoptedSlot."""

    replica: Replica
    reserved_at: float
    visible_at: float = math.inf
    """From when llama-server's /slots counts the request for certain; never, if the request needs
    no slot there."""
    aborted_at: float | None = None
    """When its request ended here; llama-server may still be processing it."""
    released: bool = False
    preemptible: bool = False
    """Its request is preemptible."""
    yields: bool = False
    """Besides, llama-server releases it when the request is aborted."""

    @property
    def is_releasing(self) -> bool:
        """Whether its request was aborted here, so that llama-server releases it soon."""
        return self.aborted_at is not None


@dataclass(slots=True, eq=False, kw_only=True)
class FurtherSlot(SlotHold):
    """A further slot of a request that takes several.

    llama-server frees these one by one, so that a running request may occupy fewer than it holds.
    """

    key: str
    """Of its request's FlowKey."""


@dataclass(slots=True, eq=False)
class AdoptedSlot(SlotHold):
    """A slot with a request that was already running when this balancer counted the slots."""

    visible_at: float = -math.inf

    @property
    @override
    def is_releasing(self) -> bool:
        """False: it is released when a request ends that may run for minutes."""
        return False
