"""What clients are asked and told before their requests are whole."""

from typing_extensions import override

from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.proxy.request_log import RequestLog
from slotkeeper.edge import cors
from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response


class BodyAdmission(BodyFilter):
    """Lets nobody without an API key fill the memory, and leaves a trace of each refusal."""

    def __init__(self, callers: RequestAccess, accounts: RequestLog) -> None:
        self._callers = callers
        self._accounts = accounts

    @override
    def check(self, request: Request) -> None:
        self._callers.authenticate(request)

    @override
    def on_rejected(self, peer: str, refusal: HttpError, request: Request | None) -> Response:
        self._accounts.rejected_incomplete(peer, refusal, request)
        answer = refusal.response()
        if request:
            answer.headers += cors.allow_origin_headers(request)
        return answer
