"""State shared by all connections of one listening address."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.exchange import Handler
from slotkeeper.wire.limits import BodyBudget, Limits


class OpenConnection(Protocol):
    """The operations of a connection that its server uses."""

    def drain(self) -> None:
        """Close after the response in progress, or now if the connection is idle."""

    def close(self, *, reset: bool) -> None:
        """Close after what is already written, or (`reset`) at once with a TCP reset."""


@dataclass(slots=True, eq=False)
class Listener:
    """State shared by all connections of one listening address."""

    handler: Handler
    limits: Limits
    body_filter: BodyFilter
    loop: asyncio.AbstractEventLoop
    budget: BodyBudget = field(init=False)
    connections: set[OpenConnection] = field(init=False, default_factory=set)
    draining: bool = field(init=False, default=False)
    """A new connection is closed after its first response."""
    closed: bool = field(init=False, default=False)
    """A new connection is aborted."""

    def __post_init__(self) -> None:
        self.budget = BodyBudget(self.limits.max_buffered)
