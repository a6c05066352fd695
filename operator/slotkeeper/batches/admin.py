"""The metrics port: for Prometheus and probes."""

from slotkeeper.batches.metrics import Metrics
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import PROMETHEUS, Response, json_response


class Admin:
    """Handles the requests of the metrics port."""

    def __init__(self, metrics: Metrics) -> None:
        self.ready = False
        self._metrics = metrics

    def handle(self, exchange: Exchange) -> None:
        """Respond to a complete request."""
        request = exchange.request
        if request.method not in {b"GET", b"HEAD"}:
            allow = [(b"Allow", b"GET, HEAD")]
            exchange.respond_with_error(
                HttpError(405, "method_not_allowed", "this port is read-only", headers=allow)
            )
        elif request.path == b"/metrics":
            exchange.respond(Response(200, self._metrics.text(), PROMETHEUS))
        elif request.path in {b"/health", b"/healthz"}:
            exchange.respond(json_response(200, {"status": "ok"}))
        elif request.path == b"/ready":
            exchange.respond(json_response(200 if self.ready else 503, {"ready": self.ready}))
        else:
            exchange.respond_with_error(HttpError(404, "not_found", "no such page on this port"))
