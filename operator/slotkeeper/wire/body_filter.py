"""Hooks for requests that are not complete yet, or never will be."""

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response


class BodyFilter:
    """Hooks that a server calls for incomplete requests. This default accepts every body."""

    def check(self, request: Request) -> None:
        """Raise HttpError if the body that follows this request head must not be sent.

        Called for large bodies only: small ones arrive together with their head.
        """

    def streams(self, request: Request) -> bool:
        """Whether a request with this head is handled while its body arrives, however long that is.

        Called for large bodies only, and only for those with a Content-Length.
        """
        del request
        return False

    def on_rejected(self, peer: str, error: HttpError, request: Request | None) -> Response:
        """Return the response for a request that was rejected before it was complete.

        `peer` is the client's address; `request` has the head only, None if that is incomplete too.
        """
        del peer, request
        return error.response()
