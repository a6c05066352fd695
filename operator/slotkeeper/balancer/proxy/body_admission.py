"""What clients are asked and told before their requests are whole."""

from typing_extensions import override

from slotkeeper.balancer.access import Callers
from slotkeeper.balancer.proxy.request_log import Accounts
from slotkeeper.edge import cors
from slotkeeper.wire.body_filter import Gate
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.message import Answer, Request


class ClientGate(Gate):
    """Lets nobody without an API key fill the memory, and leaves a trace of each refusal."""

    def __init__(self, callers: Callers, accounts: Accounts) -> None:
        self._callers = callers
        self._accounts = accounts

    @override
    def admit(self, request: Request) -> None:
        self._callers.name(request)

    @override
    def refused(self, peer: str, refusal: Refusal, request: Request | None) -> Answer:
        self._accounts.never_whole(peer, refusal, request)
        answer = refusal.answer()
        if request:
            answer.headers += cors.readable(request)
        return answer
