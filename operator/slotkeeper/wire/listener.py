"""State shared by all connections of one listening address."""

import asyncio
from dataclasses import dataclass, field

from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.budget import MemoryBudget
from slotkeeper.wire.connections import Connections
from slotkeeper.wire.exchange import Handler
from slotkeeper.wire.limits import Limits


@dataclass(slots=True, eq=False)
class Listener:
    """State shared by all connections of one listening address."""

    handler: Handler
    limits: Limits
    body_filter: BodyFilter
    loop: asyncio.AbstractEventLoop
    budget: MemoryBudget = field(init=False)
    connections: Connections = field(init=False)
    draining: bool = field(init=False, default=False)
    """A new connection is closed after its first response."""
    closed: bool = field(init=False, default=False)
    """A new connection is aborted."""

    def __post_init__(self) -> None:
        self.budget = MemoryBudget(self.limits.max_buffered)
        self.connections = Connections(self.limits, self.budget)
