"""The metrics port: for Prometheus, probes and the operator, never for clients."""

from collections.abc import Callable
from urllib.parse import parse_qs

from slotkeeper.balancer import shared
from slotkeeper.balancer.answers import PROMETHEUS
from slotkeeper.balancer.proxy import Proxy
from slotkeeper.balancer.succession import Succession
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Answer, Request, json_answer


class Admin:
    """Handles the metrics port's requests. `ready`: clients may be sent here, unless `ending`."""

    def __init__(self, proxy: Proxy) -> None:
        self.ready = self.ending = False
        self.succession: Succession | None = None
        self._proxy = proxy
        self._pages: dict[bytes, Callable[[], Answer]] = {
            b"/metrics": self._metrics,
            b"/ready": self._readiness,
            b"/healthz": lambda: json_answer(200, {"status": "ok"}),
            b"/autoscaling": proxy.autoscaling,
            b"/debug/queue": proxy.queue,
        }

    def handle(self, exchange: Exchange) -> None:
        """A request has come in whole."""
        if exchange.request.path == b"/peer" and self.succession:
            exchange.answer(_peer(self.succession, exchange.request))
            return
        page = self._pages.get(exchange.request.path)
        if page is None:
            exchange.refuse(Refusal(404, "not_found", "there is no such page on this port"))
        elif exchange.request.method not in {b"GET", b"HEAD"}:
            allow = [(b"Allow", b"GET, HEAD")]
            exchange.refuse(
                Refusal(405, "method_not_allowed", "this port is only read from", headers=allow)
            )
        elif self.succession and not self._proxy.leads and shared.concerns_all(exchange.request):
            self._proxy.spawn(shared.answer(exchange, self.succession))
        else:
            exchange.answer(page())

    def _metrics(self) -> Answer:
        return Answer(200, self._proxy.metrics.text(), PROMETHEUS)

    def _readiness(self) -> Answer:
        ready = self.ready and not (self.ending or self._proxy.draining)
        return json_answer(200 if ready else 503, {"ready": ready})


def _peer(succession: Succession, request: Request) -> Answer:
    """What another balancer asks: whether this one is there and hands out the slots."""
    query = parse_qs(request.target.partition(b"?")[2].decode("ascii", "replace"))
    leads = succession.asked(query.get("identity", [""])[0])
    return json_answer(200, {"identity": succession.me.identity, "leads": leads})
