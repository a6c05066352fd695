"""Kubernetes Events: what people want to know of a server, said when it changes. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import Manifest

COMPONENT = "slotkeeper"
LONGEST_MESSAGE = 1024
"""The API server refuses a longer one."""


@dataclass(frozen=True)
class EventContent:
    """What an event says."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    always: bool = False
    """Worth saying as often as it happens. Else once an hour for each spec is enough: what comes
    and goes would fill the list."""


def event(happening: EventContent, server: Manifest, now: datetime) -> Manifest:
    """The Event of a happening.

    Its name follows from the happening and from the server's resource version, or else from its
    generation and the hour. Said again of the same state, by an operator that was stopped before it
    could write the new one, it is a conflict instead of a second event.
    """
    metadata = server["metadata"]
    occasion = (
        metadata["resourceVersion"]
        if happening.always
        else f"{metadata.get('generation', 0)} {now:%Y-%m-%dT%H}"
    )
    said = (metadata["uid"], occasion, happening.reason, happening.message)
    digest = hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{digest}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": server["apiVersion"],
            "kind": server["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": happening.type,
        "reason": happening.reason,
        "message": happening.message[:LONGEST_MESSAGE],
        "count": 1,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
