"""The metrics port: for Prometheus, probes, the operator and other balancers, never for clients."""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qs

from slotkeeper.api import demand_report
from slotkeeper.balancer import responses
from slotkeeper.balancer.admin import leader_demand, queue_page
from slotkeeper.balancer.election import peer_auth
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.edge.long_poll import LongPoll
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import PROMETHEUS, Request, Response, json_response

DEMAND_PATH = demand_report.PATH.encode()


class Admin:
    """Handles the requests of the metrics port."""

    def __init__(self, proxy: Proxy) -> None:
        self.ready = False
        """Clients may be sent here, until the balancer shuts down, or while its access rules are
        out of date."""
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
            self._proxy.spawn(_peer(exchange, self.election))
            return
        if request.path == b"/peer/digest" and self.election:
            digest = self.election.auth.digest(_parameter(request, "for"))
            exchange.respond(json_response(200, {"digest": digest}))
            return
        page = self._pages.get(request.path)
        if page is None:
            exchange.respond_with_error(_not_found())
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
        proxy = self._proxy
        report = responses.demand_report(
            proxy.dispatcher,
            proxy.demand,
            proxy.replicas.unresponsive,
            proxy.now(),
            leader=proxy.is_leader,
            view_age=proxy.view_age(),
        )
        if proxy.is_leader:
            report = replace(report, builds=proxy.aggregate.builds)
        if proxy.prompts and proxy.is_leader:
            report = replace(report, prompt_cache=proxy.prompts.files.report())
        if proxy.priming and proxy.is_leader:
            report = replace(report, prime=proxy.priming.report())
        if proxy.speculation and proxy.is_leader:
            report = replace(report, speculation=proxy.speculation.report())
        return json_response(200, report.to_json())

    def _queue(self) -> Response:
        proxy = self._proxy
        return queue_page.queue(
            proxy.dispatcher,
            proxy.now(),
            leader=proxy.is_leader,
            prompts=proxy.prompts.files.page() if proxy.prompts else None,
        )

    def _readiness(self) -> Response:
        proxy = self._proxy
        ready = self.ready and not (self.shutting_down or proxy.draining or proxy.access.outdated)
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


async def _peer(exchange: Exchange, election: LeaderElection) -> None:
    """Respond to another balancer's probe: this balancer's identity, and whether it leads.

    For all others there is no such page, and their requests have no effect.
    """
    request = exchange.request
    identity = await election.auth.verify(request.header(peer_auth.HEADER) or b"")
    if not exchange.is_open:
        return
    if identity is None:
        exchange.respond_with_error(_not_found())
        return
    candidate = _parameter(request, "candidate") == "true"
    leader = election.on_peer_probe(identity, candidate=candidate)
    tree = {"identity": election.me, "leader": leader, "released": election.has_released}
    exchange.respond(json_response(200, tree))


def _not_found() -> HttpError:
    return HttpError(404, "not_found", "no such page on this port")


def _parameter(request: Request, name: str) -> str:
    query = parse_qs(request.target.partition(b"?")[2].decode("ascii", "replace"))
    return query.get(name, [""])[0]
