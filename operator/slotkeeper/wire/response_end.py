"""A response of which only the end matters."""

import asyncio

from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead


class ResponseEnd:
    """A Receiver that ignores a response, apart from its end."""

    def __init__(self) -> None:
        self.complete = False
        """Nothing more is received, also because the connection was lost."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set at the end; its exception is an OSError if the connection was lost."""

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """Ignore the head."""

    def on_body(self, data: bytes, framing: Framing) -> None:
        """Ignore a piece of the body."""

    def on_end(self) -> None:
        """The response is complete."""
        self.complete = True
        if not self.ended.done():
            self.ended.set_result(None)

    def on_lost(self, reason: str, *, began: bool) -> None:  # noqa: ARG002
        """The connection was lost."""
        self.complete = True
        if not self.ended.done():
            self.ended.set_exception(ConnectionResetError(reason))
