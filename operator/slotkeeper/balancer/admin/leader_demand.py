"""What is said of the server as a whole, whichever of its balancers is asked.

Whoever scales by /autoscaling through the Service meets any of them. One that stands by knows of
next to no demand: its own numbers, taken for the server's, would take replicas away under load.
"""

from slotkeeper.api.demand_report import LOCAL, PATH, DemandReport
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.election.lease import Peer, host_and_port
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.http_get import get
from slotkeeper.wire.message import Request, Response

_SECONDS = 1.0


def is_server_wide(request: Request) -> bool:
    """What is asked for is the server's, and not this balancer's alone."""
    asked = request.target.partition(b"?")[2].split(b"&")
    return request.path == PATH.encode() and LOCAL.encode() not in asked


async def respond(exchange: Exchange, succession: LeaderElection) -> None:
    """Answer as the balancer does that hands out the slots; 503 where none says that it does."""
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True

    exchange.on_disconnect = leave
    held = succession.lease
    said = await _numbers(held.holder) if held and held.holder else None
    if gone:
        return
    if said is None:
        reason = "the balancer that hands out the slots does not answer"
        exchange.respond_with_error(HttpError(503, "no_leader", reason, retry_after=1))
    else:
        exchange.respond(Response(200, said))


async def _numbers(leader: Peer) -> bytes | None:
    path = f"{PATH}?{LOCAL}"
    try:
        status, body = await get(*host_and_port(leader.metrics), path, seconds=_SECONDS)
        return body if status == 200 and DemandReport.from_json(body).leader else None
    except (OSError, ValueError):
        return None
