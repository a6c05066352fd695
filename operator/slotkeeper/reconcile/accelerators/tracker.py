"""The logs of one server's replicas: whose start is to be read, and what it shows. Pure.

The start of a log does not change: it is read once for each start of a container. Times are seconds
on one clock, which `now` reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from slotkeeper.llamacpp.diagnosis.start import StartReport

RETRY_SECONDS = 60.0
"""After an error. Without the permission to read logs, this is one request a minute and replica."""

MAX_CONTAINERS = 64
"""Of one server: the logs of the first ones are read."""


class StartedContainer(NamedTuple):
    """One start of a container."""

    pod: str
    container: str
    id: str
    """The container's id, which is another one after each restart."""
    layers: int
    """The value of --n-gpu-layers."""


@dataclass(frozen=True)
class LogResult:
    """What came of reading a log."""

    report: StartReport | None = None
    """None if it could not be read."""
    error: str = ""
    """Why it could not be read."""


@dataclass
class TrackedLogs:
    """What is kept of one server's logs; nothing for a server without GPUs."""

    containers: tuple[StartedContainer, ...] = ()
    """The containers that run."""
    _results: dict[str, LogResult] = field(default_factory=dict)
    _retry_at: dict[str, float] = field(default_factory=dict)

    def track(self, containers: Iterable[StartedContainer]) -> None:
        """Read the logs of these containers from now on."""
        self.containers = tuple(containers)[:MAX_CONTAINERS]
        ids = {each.id for each in self.containers}
        self._results = {key: each for key, each in self._results.items() if key in ids}
        self._retry_at = {key: each for key, each in self._retry_at.items() if key in ids}

    def due(self, now: float) -> list[StartedContainer]:
        """The containers whose log is to be read now."""
        return [
            each
            for each in self.containers
            if (each.id not in self._results or each.id in self._retry_at)
            and self._retry_at.get(each.id, now) <= now
        ]

    def update(self, container: StartedContainer, result: LogResult, now: float) -> bool:
        """Record what came of reading a log; whether that is new."""
        if container not in self.containers:
            # It has ended meanwhile.
            return False
        if result.report is None:
            self._retry_at[container.id] = now + RETRY_SECONDS
        else:
            self._retry_at.pop(container.id, None)
        before = self._results.get(container.id)
        self._results[container.id] = result
        return result != before

    def results(self) -> dict[str, LogResult]:
        """What is known, by the container's id."""
        return dict(self._results)
