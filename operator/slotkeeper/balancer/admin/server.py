"""The metrics port: for Prometheus, probes and the operator, never for clients."""

from collections.abc import Callable
from urllib.parse import parse_qs

from slotkeeper.api import demand_report
from slotkeeper.balancer.admin import leader_demand, queue_page
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.responses import PROMETHEUS
from slotkeeper.edge.long_poll import LongPoll
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, Response, json_response

DEMAND_PATH = demand_report.PATH.encode()


class Admin:
    """Handles the metrics port's requests. `ready`: clients may be sent here, unless `ending`."""

    def __init__(self, proxy: Proxy) -> None:
        self.ready = self.ending = False
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
        """A request has come in whole."""
        if exchange.request.path == b"/peer" and self.election:
            exchange.respond(_peer(self.election, exchange.request))
            return
        page = self._pages.get(exchange.request.path)
        if page is None:
            exchange.respond_with_error(
                HttpError(404, "not_found", "there is no such page on this port")
            )
        elif exchange.request.method not in {b"GET", b"HEAD"}:
            allow = [(b"Allow", b"GET, HEAD")]
            exchange.respond_with_error(
                HttpError(405, "method_not_allowed", "this port is only read from", headers=allow)
            )
        elif (
            self.election
            and not self._proxy.is_leader
            and leader_demand.is_server_wide(exchange.request)
        ):
            self._proxy.spawn(leader_demand.respond(exchange, self.election))
        elif self._has_no_demand and (seconds := _poll_seconds(exchange.request)):
            self._long_poll.hold(exchange, seconds)
        else:
            exchange.respond(page())

    @property
    def _has_no_demand(self) -> bool:
        """There is no replica here, and nobody who waits for one."""
        proxy = self._proxy
        return proxy.is_leader and not (proxy.dispatcher.has_replica or proxy.has_queued)

    def _metrics(self) -> Response:
        return Response(200, self._proxy.metrics.text(), PROMETHEUS)

    def _demand(self) -> Response:
        return json_response(200, self._proxy.demand_report().to_json())

    def _queue(self) -> Response:
        return queue_page.queue(self._proxy.dispatcher, self._proxy.now())

    def _readiness(self) -> Response:
        ready = self.ready and not (self.ending or self._proxy.draining)
        return json_response(200 if ready else 503, {"ready": ready})


def _poll_seconds(request: Request) -> float:
    """How many seconds whoever asks for the demand would wait for some: 0 unless it says so."""
    if request.path != DEMAND_PATH:
        return 0.0
    try:
        seconds = float(_parameter(request, "timeout"))
    except ValueError:
        return 0.0
    return seconds if seconds > 0 else 0.0  # also where it is no number


def _peer(succession: LeaderElection, request: Request) -> Response:
    """What another balancer asks: whether this one is there and hands out the slots."""
    leads = succession.on_peer_probe(_parameter(request, "identity"))
    return json_response(200, {"identity": succession.me.identity, "leader": leads})


def _parameter(request: Request, name: str) -> str:
    query = parse_qs(request.target.partition(b"?")[2].decode("ascii", "replace"))
    return query.get(name, [""])[0]
