"""The demand of the whole server, from whichever balancer it is requested.

Autoscalers that poll /autoscaling through the Service reach any of them. A standby has next to no
demand of its own: in place of the server's, that would scale it down under load.
"""

from slotkeeper.api.demand_report import LOCAL, MAX_BYTES, PATH, DemandReport
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.election.peers import Peer, host_and_port
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.http_get import get
from slotkeeper.wire.message import Request, Response

_SECONDS = 1.0


def is_server_wide(request: Request) -> bool:
    """Whether the request is for the server's demand, not for this balancer's alone."""
    query = request.target.partition(b"?")[2].split(b"&")
    return request.path == PATH.encode() and LOCAL.encode() not in query


async def respond(exchange: Exchange, election: LeaderElection) -> None:
    """Respond with the leader's report, or with 503 if no balancer reports to be the leader."""
    leader = election.leader
    report = await _report(leader) if leader else None
    if not exchange.is_open:
        return
    if report is None:
        message = "no response from the leader"
        exchange.respond_with_error(HttpError(503, "no_leader", message, retry_after=1))
    else:
        exchange.respond(Response(200, report))


async def _report(leader: Peer) -> bytes | None:
    path = f"{PATH}?{LOCAL}"
    try:
        address = host_and_port(leader.metrics)
        status, body = await get(*address, path, seconds=_SECONDS, max_bytes=MAX_BYTES)
        return body if status == 200 and DemandReport.from_json(body).leader else None
    except (OSError, ValueError):
        return None
