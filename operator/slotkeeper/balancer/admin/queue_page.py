"""What people are shown of the queue: whose requests wait, how long, for what; and no prompts."""

from dataclasses import asdict
from typing import Any

from slotkeeper.scheduling import Dispatcher, FlowKey, QueuedRequest, Replica
from slotkeeper.wire.message import Response, json_response

_MOST = 100
"""Requests that are listed one by one: a look at a long queue must not stop the streams."""


def queue(dispatcher: Dispatcher[Any], now: float) -> Response:
    """The queue as a whole, by priority and key, its first requests, and what they wait for."""
    tickets = list(dispatcher.queue)
    by_standing: dict[FlowKey, list[QueuedRequest[Any]]] = {}
    for ticket in tickets:
        by_standing.setdefault(ticket.flow_key, []).append(ticket)
    return json_response(
        200,
        {
            "queued": len(tickets),
            "queuedBytes": dispatcher.queued_bytes,
            "oldestQueuedSeconds": round(dispatcher.oldest_queued_seconds(now), 3),
            "byPriorityAndKey": [
                {
                    **_standing(standing),
                    "queued": len(group),
                    "oldestQueuedSeconds": round(now - min(each.arrived for each in group), 3),
                }
                for standing, group in by_standing.items()
            ],
            "next": [
                {
                    "position": position,
                    **_standing(ticket.flow_key),
                    "queuedSeconds": round(now - ticket.arrived, 3),
                    "bytes": ticket.size,
                    "affinityReplica": ticket.affinity_replica,
                    "bypassed": ticket.bypassed,
                    "attempts": ticket.attempts,
                }
                for position, ticket in enumerate(tickets[:_MOST], start=1)
            ],
            "startBlocker": asdict(dispatcher.start_blocker) if dispatcher.start_blocker else None,
            "replicas": [_replica(dispatcher, each) for each in dispatcher.replicas.values()],
        },
    )


def _standing(standing: FlowKey) -> dict[str, object]:
    return {"priority": standing.priority, "key": standing.key or None}


def _replica(dispatcher: Dispatcher[Any], replica: Replica) -> dict[str, object]:
    line = dispatcher.queue.affinity_queues.get(replica.name)
    return {
        "name": replica.name,
        "ready": replica.ready,
        "slots": replica.slots,
        "busy": replica.busy,
        "releasing": sum(claim.aborted_at is not None for claim in replica.holds),
        "affinityQueue": len(line) if line else 0,
        "cachedPrefixes": dispatcher.affinity_scheduler.prefix_index.prompt_counts.get(
            replica.name, 0
        ),
    }
