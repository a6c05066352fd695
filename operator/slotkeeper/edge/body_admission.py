"""Access control before a request's body is read."""

from collections.abc import Callable

from typing_extensions import override

from slotkeeper.edge.cors import CorsPolicy
from slotkeeper.edge.error_format import error_response
from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response


class BodyAdmission(BodyFilter):
    """Keeps clients without an API key from filling the memory, and logs what is rejected.

    `authenticate` raises HttpError for a request without a valid key. `log_rejected` is called with
    the client's address, the error, and the head of the request, None if that is incomplete.
    `streams` returns whether a request is handled while its body arrives.
    """

    def __init__(
        self,
        authenticate: Callable[[Request], object],
        log_rejected: Callable[[str, HttpError, Request | None], None],
        cors: CorsPolicy,
        streams: Callable[[Request], bool] = lambda _: False,
    ) -> None:
        self._authenticate = authenticate
        self._log_rejected = log_rejected
        self._cors = cors
        self._streams = streams

    @override
    def check(self, request: Request) -> None:
        self._authenticate(request)

    @override
    def streams(self, request: Request) -> bool:
        return self._streams(request)

    @override
    def on_rejected(self, peer: str, error: HttpError, request: Request | None) -> Response:
        self._log_rejected(peer, error, request)
        if request is None:
            return error.response()
        response = error_response(error, request.path)
        response.headers += self._cors.allow_origin_headers(request)
        return response
