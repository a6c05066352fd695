"""What people are shown of the queue: whose requests wait, how long, for what; and no prompts."""

from dataclasses import asdict
from typing import Any

from slotkeeper.scheduling import Dispatcher, Replica, Standing, Ticket
from slotkeeper.wire.message import Answer, json_answer

_MOST = 100
"""Requests that are listed one by one: a look at a long queue must not stop the streams."""


def queue(dispatcher: Dispatcher[Any], now: float) -> Answer:
    """The queue as a whole, by priority and key, its first requests, and what they wait for."""
    tickets = list(dispatcher.queue)
    by_standing: dict[Standing, list[Ticket[Any]]] = {}
    for ticket in tickets:
        by_standing.setdefault(ticket.standing, []).append(ticket)
    return json_answer(
        200,
        {
            "waiting": len(tickets),
            "waitingBytes": dispatcher.waiting_bytes,
            "oldestWaitSeconds": round(dispatcher.oldest_wait(now), 3),
            "byPriorityAndKey": [
                {
                    **_standing(standing),
                    "waiting": len(group),
                    "oldestWaitSeconds": round(now - min(each.arrived for each in group), 3),
                }
                for standing, group in by_standing.items()
            ],
            "next": [
                {
                    "position": position,
                    **_standing(ticket.standing),
                    "waitSeconds": round(now - ticket.arrived, 3),
                    "bytes": ticket.size,
                    "warmLine": ticket.line,
                    "overtaken": ticket.overtaken,
                    "tries": ticket.tries,
                }
                for position, ticket in enumerate(tickets[:_MOST], start=1)
            ],
            "obstacle": asdict(dispatcher.obstacle) if dispatcher.obstacle else None,
            "replicas": [_replica(dispatcher, each) for each in dispatcher.replicas.values()],
        },
    )


def _standing(standing: Standing) -> dict[str, object]:
    return {"priority": standing.priority, "key": standing.key or None}


def _replica(dispatcher: Dispatcher[Any], replica: Replica) -> dict[str, object]:
    line = dispatcher.queue.lines.get(replica.name)
    return {
        "name": replica.name,
        "accepting": replica.accepting,
        "slots": replica.slots,
        "busy": replica.held,
        "lettingGo": sum(claim.abandoned_at is not None for claim in replica.claims),
        "warmLine": len(line) if line else 0,
        "knownPrompts": dispatcher.matcher.prefixes.remembered.get(replica.name, 0),
    }
