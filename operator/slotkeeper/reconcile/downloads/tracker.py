"""The downloads of one server: which of its pods run one, and how far they are. Pure.

Times are seconds on one clock, which `now` reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slotkeeper.reconcile.downloads.report import ProgressReport

MAX_POLLED = 16
"""Pods of one server that are polled in one round, in turns if it has more."""

MAX_AGE_SECONDS = 30.0
"""Up to which a report is current: with very many downloads, servers are polled in turns."""


@dataclass(frozen=True)
class PodProgress:
    """What a pod reported, and when."""

    report: ProgressReport
    at: float


@dataclass(frozen=True)
class DownloadSample:
    """The progress of a server's download at one moment."""

    total_bytes: int | None
    downloaded_bytes: int
    stalled_seconds: float
    """For how long no download of the server has made progress."""


@dataclass
class TrackedDownload:
    """What is kept of one server's downloads; almost nothing while there are none."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    """HOST:PORT of the pods that run a download, by their uid."""
    polled_at: float = 0.0
    """When the last round began."""
    advanced_at: float = 0.0
    """When a download last made progress, or when the first one was noticed."""
    _reports: dict[str, PodProgress] = field(default_factory=dict)
    """By the pod's uid."""
    _turn: int = 0

    def track(self, addresses: Mapping[str, str], now: float) -> None:
        """Poll these pods from now on."""
        if addresses and not self.addresses:
            self.advanced_at = now
        self.addresses = dict(addresses)
        self._reports = {pod: kept for pod, kept in self._reports.items() if pod in addresses}

    def next_pods(self, now: float) -> list[tuple[str, str]]:
        """The pods to poll now, each with its address. All of them, or the one that is reported
        and some of the others in turns: on a claim one downloads, and the others wait."""
        self.polled_at = now
        pods = list(self.addresses)
        if len(pods) > MAX_POLLED:
            best = self._best(now)
            others = [pod for pod in pods if pod != best]
            self._turn = (self._turn + MAX_POLLED - 1) % len(others)
            others = others[self._turn :] + others[: self._turn]
            pods = [*([best] if best else []), *others][:MAX_POLLED]
        return [(pod, self.addresses[pod]) for pod in pods]

    def update(self, pod: str, report: ProgressReport, now: float) -> None:
        """Record what a pod reported."""
        if pod not in self.addresses:
            # It has ended meanwhile.
            return
        before = self._reports.get(pod)
        if before is None or _advances(before.report, report):
            self.advanced_at = now
        self._reports[pod] = PodProgress(report, now)

    def latest(self, pods: Mapping[str, str], now: float) -> ProgressReport | None:
        """The progress of the pod that will have its model first; `pods` are those that still run a
        download. None where no current report is known."""
        best = self._best(now, pods)
        return self._reports[best].report if best else None

    def sample(self, now: float) -> DownloadSample | None:
        """The progress for the metrics; None where no current report is known."""
        report = self.latest(self.addresses, now)
        if report is None:
            return None
        stalled = now - self.advanced_at
        return DownloadSample(report.total_bytes, report.downloaded_bytes, stalled)

    def _best(self, now: float, pods: Mapping[str, str] | None = None) -> str | None:
        current = [
            pod
            for pod, progress in self._reports.items()
            if now - progress.at <= MAX_AGE_SECONDS and (pods is None or pod in pods)
        ]
        return min(current, key=lambda pod: (self._reports[pod].report.rank, pod), default=None)


def _advances(before: ProgressReport, now: ProgressReport) -> bool:
    """Whether a download progresses. One that waits does not stall: another one is tracked."""
    return (
        now.phase in {"Verifying", "Waiting"}
        or now.phase != before.phase
        or now.downloaded_bytes > before.downloaded_bytes
    )
