"""The metrics port: for Prometheus, probes and the operator, never for clients."""

from collections.abc import Callable
from urllib.parse import parse_qs

from slotkeeper.balancer.admin import leader_demand, queue_page
from slotkeeper.balancer.election.election import Succession
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.responses import PROMETHEUS
from slotkeeper.edge.long_poll import Onlookers
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Answer, Request, json_answer


class Admin:
    """Handles the metrics port's requests. `ready`: clients may be sent here, unless `ending`."""

    def __init__(self, proxy: Proxy) -> None:
        self.ready = self.ending = False
        self.succession: Succession | None = None
        self._proxy = proxy
        self._onlookers = Onlookers(proxy.autoscaling)
        proxy.on_wait = self._onlookers.tell
        self._pages: dict[bytes, Callable[[], Answer]] = {
            b"/metrics": self._metrics,
            b"/ready": self._readiness,
            b"/healthz": lambda: json_answer(200, {"status": "ok"}),
            b"/autoscaling": proxy.autoscaling,
            b"/debug/queue": self._queue,
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
        elif (
            self.succession
            and not self._proxy.leads
            and leader_demand.concerns_all(exchange.request)
        ):
            self._proxy.spawn(leader_demand.answer(exchange, self.succession))
        elif self._sleeps and (seconds := _patience(exchange.request)):
            self._onlookers.hold(exchange, seconds)
        else:
            exchange.answer(page())

    @property
    def _sleeps(self) -> bool:
        """There is no replica here, and nobody who waits for one."""
        proxy = self._proxy
        return proxy.leads and not (proxy.dispatcher.has_replica or proxy.waits)

    def _metrics(self) -> Answer:
        return Answer(200, self._proxy.metrics.text(), PROMETHEUS)

    def _queue(self) -> Answer:
        return queue_page.queue(self._proxy.dispatcher, self._proxy.now())

    def _readiness(self) -> Answer:
        ready = self.ready and not (self.ending or self._proxy.draining)
        return json_answer(200 if ready else 503, {"ready": ready})


def _patience(request: Request) -> float:
    """How many seconds whoever asks for the demand would wait for some: 0 unless it says so."""
    if request.path != b"/autoscaling":
        return 0.0
    try:
        seconds = float(_parameter(request, "wait"))
    except ValueError:
        return 0.0
    return seconds if seconds > 0 else 0.0  # also where it is no number


def _peer(succession: Succession, request: Request) -> Answer:
    """What another balancer asks: whether this one is there and hands out the slots."""
    leads = succession.asked(_parameter(request, "identity"))
    return json_answer(200, {"identity": succession.me.identity, "leads": leads})


def _parameter(request: Request, name: str) -> str:
    query = parse_qs(request.target.partition(b"?")[2].decode("ascii", "replace"))
    return query.get(name, [""])[0]
