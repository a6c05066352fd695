"""Who has a say before a request is whole, and where one never becomes so."""

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response


class BodyFilter:
    """What a server asks about requests that are not whole yet. This one lets all of them in."""

    def check(self, request: Request) -> None:
        """Whether the body may come that follows this head. Raises Refusal where it may not.

        Asked only of a body that is worth it: small ones come with their head.
        """

    def on_rejected(self, peer: str, refusal: HttpError, request: Request | None) -> Response:
        """What a client at `peer` is told whose request was refused before it was whole.

        `request` is its head, None where that is not known.
        """
        del peer, request
        return refusal.response()
