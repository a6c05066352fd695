"""The side that clients talk to: a listening address and its connections."""

import asyncio

from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.connection import DownstreamConnection
from slotkeeper.wire.exchange import Handler
from slotkeeper.wire.limits import BodyBudget, Limits


class Server:
    """What all connections of one listening address share."""

    def __init__(
        self, handler: Handler, limits: Limits | None = None, body_filter: BodyFilter | None = None
    ) -> None:
        self.handler = handler
        self.body_filter = body_filter or BodyFilter()
        self.limits = limits or Limits()
        self.budget = BodyBudget(self.limits.max_buffered)
        self.connections: set[DownstreamConnection] = set()
        self.draining = False
        self.closed = False
        self.loop: asyncio.AbstractEventLoop
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Start to accept; the address that was bound. Raises OSError."""
        self.loop = asyncio.get_running_loop()
        self._listener = await self.loop.create_server(
            lambda: DownstreamConnection(self), host, port, backlog=4096
        )
        bound = self._listener.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    def drain(self) -> None:
        """Each answer from now on is its connection's last; idle connections are closed."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_if_idle()

    async def close(self) -> None:
        """Accept no more and cut what is still open."""
        self.closed = True
        if self._listener:
            self._listener.close()
        for connection in list(self.connections):
            connection.close(reset=True)
        # The transports tell their protocols in the loop's next round, and what was accepted
        # just before is made a connection in the one after that.
        for _ in range(3):
            await asyncio.sleep(0)
