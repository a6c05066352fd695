"""The metrics port: for Prometheus, probes, the operator and other balancers, never for clients."""

from collections.abc import Callable
from urllib.parse import parse_qs

from slotkeeper.api import demand_report
from slotkeeper.balancer.admin import leader_demand, queue_page
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.local_responses import PROMETHEUS
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.edge.long_poll import LongPoll
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, Response, json_response

DEMAND_PATH = demand_report.PATH.encode()


class Admin:
    """Handles the requests of the metrics port."""

    def __init__(self, proxy: Proxy) -> None:
        self.ready = False
        """Clients may be sent here, until the balancer shuts down."""
        self.shutting_down = False
        self.election: LeaderElection | None = None
        self._proxy = proxy
        self._long_poll = LongPoll(self._demand)
        proxy.on_demand = self._long_poll.release_all
        self._pages: dict[bytes, Callable[[], Response]] = {
            b"/metrics": self._metrics,
            b"/ready": self._readiness,
            b"/healthz": lambda: json_response(200, {"status": "ok"}),
            DEMAND_PATH: self._demand,
            b"/debug/queue": self._queue,
        }

    def handle(self, exchange: Exchange) -> None:
        """Respond to a complete request, or hold it as a long poll."""
        request = exchange.request
        if request.path == b"/peer" and self.election:
            exchange.respond(_peer(self.election, request))
            return
        page = self._pages.get(request.path)
        if page is None:
            exchange.respond_with_error(HttpError(404, "not_found", "no such page on this port"))
        elif request.method not in {b"GET", b"HEAD"}:
            allow = [(b"Allow", b"GET, HEAD")]
            exchange.respond_with_error(
                HttpError(405, "method_not_allowed", "this port is read-only", headers=allow)
            )
        elif self.election and not self._proxy.is_leader and leader_demand.is_server_wide(request):
            self._proxy.spawn(leader_demand.respond(exchange, self.election))
        elif self._proxy.at_zero and (seconds := _poll_seconds(request)):
            self._long_poll.hold(exchange, seconds)
        else:
            exchange.respond(page())

    def _metrics(self) -> Response:
        return Response(200, self._proxy.metrics.text(), PROMETHEUS)

    def _demand(self) -> Response:
        return json_response(200, self._proxy.demand_report().to_json())

    def _queue(self) -> Response:
        proxy = self._proxy
        return queue_page.queue(proxy.dispatcher, proxy.now(), leader=proxy.is_leader)

    def _readiness(self) -> Response:
        ready = self.ready and not (self.shutting_down or self._proxy.draining)
        return json_response(200 if ready else 503, {"ready": ready})


def _poll_seconds(request: Request) -> float:
    """Return for how long a request for the demand may be held while there is none; 0: not."""
    if request.path != DEMAND_PATH:
        return 0.0
    try:
        seconds = float(_parameter(request, "timeout"))
    except ValueError:
        return 0.0
    return seconds if seconds > 0 else 0.0  # 0 for NaN


def _peer(election: LeaderElection, request: Request) -> Response:
    """Respond to another balancer's probe: this balancer's identity, and whether it leads."""
    leader = election.on_peer_probe(_parameter(request, "identity"))
    return json_response(200, {"identity": election.me.identity, "leader": leader})


def _parameter(request: Request, name: str) -> str:
    query = parse_qs(request.target.partition(b"?")[2].decode("ascii", "replace"))
    return query.get(name, [""])[0]
