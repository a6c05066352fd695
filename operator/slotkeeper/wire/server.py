"""The downstream side: a listening address and its connections."""

import asyncio
import ssl

from slotkeeper.wire import sockets
from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.connection import DownstreamConnection
from slotkeeper.wire.exchange import Handler
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.listener import Listener


class Server:
    """A listening address and its connections. Create it in a running event loop."""

    def __init__(
        self, handler: Handler, limits: Limits | None = None, body_filter: BodyFilter | None = None
    ) -> None:
        self.listener = Listener(
            handler, limits or Limits(), body_filter or BodyFilter(), asyncio.get_running_loop()
        )
        self._server: asyncio.Server | None = None

    async def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Start accepting connections, with TLS if `tls`. Return the bound address.

        Raises OSError.
        """
        self._server = await self.listener.loop.create_server(
            lambda: DownstreamConnection(self.listener),
            sock=sockets.listen(host, port),
            backlog=sockets.BACKLOG,
            ssl=tls,
            # A handshake is not yet a connection that the limits count.
            ssl_handshake_timeout=self.listener.limits.head_timeout if tls else None,
        )
        bound = self._server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    def drain(self) -> None:
        """Close idle connections now, and each other one after its next response."""
        self.listener.draining = True
        for connection in self.listener.connections:
            connection.drain()

    async def close(self) -> None:
        """Stop accepting connections, and reset the open ones."""
        self.listener.closed = True
        if self._server:
            self._server.close()
        for connection in self.listener.connections:
            connection.close(reset=True)
        # Transports call connection_lost in the loop's next iteration. A connection that was
        # accepted just before gets its connection_made in the iteration after that.
        for _ in range(3):
            await asyncio.sleep(0)
