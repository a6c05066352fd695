"""/debug/queue: the queue and the replicas as JSON, without prompts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from slotkeeper.scheduling import Dispatcher, FlowKey, QueuedRequest, Replica
from slotkeeper.wire.message import Response, json_response

_MAX_LISTED = 100
"""Requests listed one by one: to list a long queue would delay the streams."""


def queue(
    dispatcher: Dispatcher[Any],
    now: float,
    *,
    leader: bool,
    prompts: Mapping[str, object] | None = None,
) -> Response:
    """Return the queue in total, by priority and key, its first requests, and the replicas.

    `prompts`: the state of the prompt files, if prompts are kept.
    """
    requests = list(dispatcher.queue)
    by_flow: dict[FlowKey, list[QueuedRequest[Any]]] = {}
    for queued in requests:
        by_flow.setdefault(queued.flow_key, []).append(queued)
    return json_response(
        200,
        {
            "leader": leader,
            "queued": len(requests),
            "held": dispatcher.held,
            "queuedBytes": dispatcher.queued_bytes,
            "oldestQueuedSeconds": round(dispatcher.oldest_queued_seconds(now), 3),
            "byPriorityAndKey": [
                {
                    **_flow(flow_key),
                    "queued": len(group),
                    "oldestQueuedSeconds": round(now - min(each.arrived for each in group), 3),
                }
                for flow_key, group in by_flow.items()
            ],
            "next": [
                {
                    "position": position,
                    **_flow(queued.flow_key),
                    "queuedSeconds": round(now - queued.arrived, 3),
                    "bytes": queued.size,
                    "tasks": queued.tasks.total,
                    "gatheringOn": queued.gathering_on,
                    "affinityReplica": queued.affinity_replica,
                    "held": queued.held,
                    "bypassed": queued.bypassed,
                    "attempts": queued.attempts,
                }
                for position, queued in enumerate(requests[:_MAX_LISTED], start=1)
            ],
            "startBlocker": asdict(dispatcher.start_blocker) if dispatcher.start_blocker else None,
            "replicas": [_replica(dispatcher, each) for each in dispatcher.replicas.values()],
            "promptFiles": prompts,
        },
    )


def _flow(flow_key: FlowKey) -> dict[str, object]:
    priority = None if flow_key.preemptible else flow_key.priority
    return {"priority": priority, "preemptible": flow_key.preemptible, "key": flow_key.key or None}


def _replica(dispatcher: Dispatcher[Any], replica: Replica) -> dict[str, object]:
    prompt_counts = dispatcher.affinity_scheduler.prefix_index.prompt_counts
    affinity_queue = dispatcher.queue.affinity_queues.get(replica.name)
    return {
        "name": replica.name,
        "ready": replica.ready,
        "slots": replica.slots,
        "busy": replica.busy,
        "preemptible": replica.preemptible,
        "releasing": sum(hold.aborted_at is not None for hold in replica.holds),
        "affinityQueue": len(affinity_queue) if affinity_queue else 0,
        "cachedPrefixes": prompt_counts.get(replica.name, 0),
    }
