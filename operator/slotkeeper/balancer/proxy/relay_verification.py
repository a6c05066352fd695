"""Verification of relayed requests, before they are handled."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from slotkeeper.balancer.access import RequestAccess
from slotkeeper.wire.exchange import Exchange


@dataclass(frozen=True, slots=True)
class RelayVerification:
    """Calls `then` with each request, once a relayed one was verified as far as it can be."""

    access: RequestAccess
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    then: Callable[[Exchange], None]

    def handle(self, exchange: Exchange) -> None:
        """Handle a complete request."""
        if self.access.must_verify(exchange.request):
            self.spawn(self._verify(exchange))
        else:
            self.then(exchange)

    async def _verify(self, exchange: Exchange) -> None:
        await self.access.verify(exchange.request)
        if exchange.is_open:
            self.then(exchange)
