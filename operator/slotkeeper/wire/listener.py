"""State that all connections of one listening address share."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.exchange import Handler
from slotkeeper.wire.limits import BodyBudget, Limits


class OpenConnection(Protocol):
    """Operations of a connection that the server calls."""

    def drain(self) -> None:
        """Close after the response in progress, or now if the connection is idle."""

    def close(self, *, reset: bool) -> None:
        """Close now; `reset`: with a TCP reset."""


@dataclass(slots=True, eq=False)
class Listener:
    """State that all connections of one listening address share."""

    handler: Handler
    limits: Limits
    body_filter: BodyFilter
    loop: asyncio.AbstractEventLoop
    budget: BodyBudget = field(init=False)
    connections: set[OpenConnection] = field(init=False, default_factory=set)
    draining: bool = field(init=False, default=False)
    """New connections too are closed after their first response."""
    closed: bool = field(init=False, default=False)
    """New connections are aborted."""

    def __post_init__(self) -> None:
        self.budget = BodyBudget(self.limits.max_buffered)
