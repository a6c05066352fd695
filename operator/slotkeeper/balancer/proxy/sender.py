"""Sends requests to the upstreams that they are assigned to."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.proxy import relay
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.proxy.retry import FailedAttempt
from slotkeeper.error_text import describe
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.message import encode_request_head


@dataclass(slots=True)
class Sender:
    """Sends a request as soon as there is a connection, unless it has been detached meanwhile."""

    access: RequestAccess
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    may_dispatch: Callable[[], bool]
    """Whether no other balancer can be the leader."""
    requeue: Callable[[ProxiedRequest], None]
    """Returns a request to the queue, which was not sent."""
    on_failure: Callable[[ProxiedRequest, FailedAttempt], None]

    def send(self, request: ProxiedRequest, pool: Pool) -> None:
        """Send a request over a connection of its pool."""
        if connection := pool.acquire():
            self._send(request, connection)
        else:
            self.spawn(self.connect(request, pool))

    async def connect(self, request: ProxiedRequest, pool: Pool) -> None:
        """Send a request over a new connection."""
        try:
            connection = await pool.connect()
        except OSError as error:
            if request.pool is pool:
                reason = describe(error)
                self.on_failure(request, request.record_failure(reason, sent=False))
            return
        if request.pool is not pool:
            pool.release(connection)
        elif request.reservation and not self.may_dispatch():
            # A new leader may have counted the slots without this one.
            pool.release(connection)
            self.requeue(request)
        else:
            self._send(request, connection)

    def _send(self, request: ProxiedRequest, connection: UpstreamConnection) -> None:
        message = request.exchange.request
        if request.relayed:
            head = relay.encode_relayed_head(
                message, request.key_name, request.proof, self.access.forwarded_headers
            )
        else:
            head = encode_request_head(message, self.access.forwarded_headers)
        request.send(connection, head)
