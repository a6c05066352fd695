"""Access control before a request's body is read."""

from typing_extensions import override

from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.proxy.request_log import RequestLog
from slotkeeper.edge import cors
from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response


class BodyAdmission(BodyFilter):
    """Keeps clients without an API key from filling the memory, and logs what is rejected."""

    def __init__(self, access: RequestAccess, request_log: RequestLog) -> None:
        self._access = access
        self._request_log = request_log

    @override
    def check(self, request: Request) -> None:
        self._access.authenticate(request)

    @override
    def on_rejected(self, peer: str, refusal: HttpError, request: Request | None) -> Response:
        self._request_log.rejected_incomplete(peer, refusal, request)
        response = refusal.response()
        if request:
            response.headers += cors.allow_origin_headers(request)
        return response
