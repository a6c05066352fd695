"""Reads the API server's audit log."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR = ("slotkeeper", "kopf/")
"""User agents of the operator's clients: its own, and kopf's."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to which the API server has responded."""

    at: datetime
    agent: str
    verb: str
    resource: str
    name: str
    status: int
    """HTTP status of the response."""

    @property
    def is_operators(self) -> bool:
        """Whether the operator sent it."""
        return self.agent.startswith(OPERATOR)

    @property
    def is_write(self) -> bool:
        """Whether its verb is a write."""
        return self.verb in WRITES

    @property
    def is_own_lease(self) -> bool:
        """Whether its object is the Lease of the operator's leader election."""
        return (self.resource, self.name) == ("leases", "slotkeeper-operator")


def requests(log: Path, since: datetime) -> Iterator[Request]:
    """Yield the requests received at `since` or later, from rotated logs too."""
    for file in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        with file.open() as lines:
            for line in lines:
                request = _request(line)
                if request is not None and request.at >= since:
                    yield request


def writes(entries: Iterator[Request]) -> Counter[str]:
    """Count the operator's writes by verb and resource, without those to its own Lease."""
    return Counter(
        f"{request.verb} {request.resource}"
        for request in entries
        if request.is_operators and request.is_write and not request.is_own_lease
    )


def _request(line: str) -> Request | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None  # the last line, not yet complete
    target = event.get("objectRef") or {}
    resource = "/".join(filter(None, (target.get("resource", ""), target.get("subresource", ""))))
    return Request(
        at=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        resource=resource,
        name=target.get("name", ""),
        status=event.get("responseStatus", {}).get("code", 0),
    )
