"""What is sent in place of a client's request, and what writes the response."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Header, Request, Response, ResponseHead


class ResponseOutput(Protocol):
    """What writes the response to the client: a PassThrough, or a translation."""

    @property
    def unchanged(self) -> bool:
        """Whether it takes the bytes of the body with their chunk framing."""

    @property
    def close_ends_body(self) -> bool:
        """Whether the end of the client's connection marks the end of the body."""

    @property
    def failure(self) -> str:
        """Why the server's response cannot be translated; empty if it can."""

    def begin(
        self, head: ResponseHead, framing: Framing, added: Iterable[Header], *, more: bool
    ) -> None:
        """Take the head; `more`: bytes of the body follow at once."""

    def write(self, data: bytes) -> None:
        """Take bytes of the body."""

    def finish(self) -> None:
        """Send what ends the response."""

    def fail(self, message: str) -> bool:
        """End a response that has begun with an error; return False if its format has none."""

    def error(self, response: Response) -> Response:
        """Return a complete error response in the client's format."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What is sent in place of a client's request, and what translates the response."""

    message: Request
    output: ResponseOutput
