"""The metrics port: for Prometheus and probes, never for clients."""

from collections.abc import Callable

from slotkeeper.gateway.proxy import Gateway
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import PROMETHEUS, Response, json_response


class Admin:
    """Handles the requests of the metrics port."""

    def __init__(self, gateway: Gateway) -> None:
        self.shutting_down = False
        self._gateway = gateway
        self._pages: dict[bytes, Callable[[], Response]] = {
            b"/metrics": lambda: Response(200, gateway.metrics.text(), PROMETHEUS),
            b"/ready": self._readiness,
            b"/healthz": lambda: json_response(200, {"status": "ok"}),
        }

    def handle(self, exchange: Exchange) -> None:
        """Respond to a complete request."""
        page = self._pages.get(exchange.request.path)
        if page is None:
            exchange.respond_with_error(HttpError(404, "not_found", "no such page on this port"))
        elif exchange.request.method not in {b"GET", b"HEAD"}:
            allow = [(b"Allow", b"GET, HEAD")]
            exchange.respond_with_error(
                HttpError(405, "method_not_allowed", "this port is read-only", headers=allow)
            )
        else:
            exchange.respond(page())

    def _readiness(self) -> Response:
        gateway = self._gateway
        ready = gateway.synced and not (self.shutting_down or gateway.draining)
        return json_response(200 if ready else 503, {"ready": ready})
