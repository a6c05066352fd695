"""The API server's audit log: who asked what, and when."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR = ("slotkeeper", "kopf/")
"""How the operator's clients name themselves: its own, and kopf's."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the API server has answered."""

    at: datetime
    agent: str
    verb: str
    resource: str
    name: str
    status: int
    """Of the answer, as in HTTP."""

    @property
    def is_operators(self) -> bool:
        """Whether the operator sent it."""
        return self.agent.startswith(OPERATOR)

    @property
    def is_write(self) -> bool:
        """Whether it asked for a change."""
        return self.verb in WRITES

    @property
    def is_own_lease(self) -> bool:
        """Whether it is about the Lease by which one operator of several works."""
        return (self.resource, self.name) == ("leases", "slotkeeper-operator")


def requests(log: Path, since: datetime) -> Iterator[Request]:
    """What was asked since then. The log may have been rotated meanwhile."""
    for file in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        with file.open() as lines:
            for line in lines:
                request = _request(line)
                if request is not None and request.at >= since:
                    yield request


def writes(found: Iterator[Request]) -> Counter[str]:
    """The operator's writes, its own Lease aside, by verb and resource."""
    return Counter(
        f"{request.verb} {request.resource}"
        for request in found
        if request.is_operators and request.is_write and not request.is_own_lease
    )


def _request(line: str) -> Request | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None  # the last line, half written
    about = event.get("objectRef") or {}
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    return Request(
        at=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        resource=resource,
        name=about.get("name", ""),
        status=event.get("responseStatus", {}).get("code", 0),
    )
