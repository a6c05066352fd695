"""The side that clients talk to: a listening address and its connections."""

import asyncio

from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.connection import DownstreamConnection
from slotkeeper.wire.exchange import Handler
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.listener import Listener


class Server:
    """What all connections of one listening address share."""

    def __init__(
        self, handler: Handler, limits: Limits | None = None, body_filter: BodyFilter | None = None
    ) -> None:
        self.listener = Listener(
            handler, limits or Limits(), body_filter or BodyFilter(), asyncio.get_running_loop()
        )
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Start to accept; the address that was bound. Raises OSError."""
        self._server = await self.listener.loop.create_server(
            lambda: DownstreamConnection(self.listener), host, port, backlog=4096
        )
        bound = self._server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    def drain(self) -> None:
        """Each answer from now on is its connection's last; idle connections are closed."""
        self.listener.draining = True
        for connection in list(self.listener.connections):
            connection.drain()

    async def close(self) -> None:
        """Accept no more and cut what is still open."""
        self.listener.closed = True
        if self._server:
            self._server.close()
        for connection in list(self.listener.connections):
            connection.close(reset=True)
        # The transports tell their protocols in the loop's next round, and what was accepted
        # just before is made a connection in the one after that.
        for _ in range(3):
            await asyncio.sleep(0)
