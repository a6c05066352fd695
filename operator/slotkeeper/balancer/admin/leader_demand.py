"""What is said of the server as a whole, whichever of its balancers is asked.

Whoever scales by /autoscaling through the Service meets any of them. One that stands by knows of
next to no demand: its own numbers, taken for the server's, would take replicas away under load.
"""

import json

from slotkeeper.balancer.election.election import Succession
from slotkeeper.balancer.election.lease import Peer, host_and_port
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.http_get import get
from slotkeeper.wire.message import Answer, Request

PATH = b"/autoscaling"
OWN = b"own"
"""In the query of whoever wants the numbers of the very balancer that is asked: the operator, which
asks all of them, and one that stands by, so that no question goes round in circles."""

_SECONDS = 1.0


def concerns_all(request: Request) -> bool:
    """What is asked for is the server's, and not this balancer's alone."""
    asked = request.target.partition(b"?")[2].split(b"&")
    return request.path == PATH and OWN not in asked


async def answer(exchange: Exchange, succession: Succession) -> None:
    """Answer as the balancer does that hands out the slots; 503 where none says that it does."""
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True

    exchange.on_gone = leave
    held = succession.held
    said = await _numbers(held.holder) if held and held.holder else None
    if gone:
        return
    if said is None:
        reason = "the balancer that hands out the slots does not answer"
        exchange.refuse(Refusal(503, "no_active_balancer", reason, retry_after=1))
    else:
        exchange.answer(Answer(200, said))


async def _numbers(leader: Peer) -> bytes | None:
    path = f"{PATH.decode()}?{OWN.decode()}"
    try:
        status, body = await get(*host_and_port(leader.metrics), path, seconds=_SECONDS)
        return body if status == 200 and json.loads(body)["leads"] is True else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
