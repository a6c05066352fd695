"""Which request is sent next, and how many to each model. Pure: time is an argument.

Owners take turns, then their batches, then the models of a batch. Each model has a window: the
number of requests in progress. It grows by one for as many successes as it has requests, and is
halved when the model has no slot for one (additive increase, multiplicative decrease, as in TCP).
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from slotkeeper.backoff import Backoff

HALVE_SECONDS = 1.0
"""A window is halved once in this time: the requests that it had are rejected together."""
THROTTLED = Backoff(first=0.5, maximum=30)
"""Delays of a model that accepts no request."""
PREEMPTED = Backoff(first=0.5, maximum=5)
"""Delays of one that has aborted a request for another: its queue keeps the next one back."""


class Next(NamedTuple):
    """The request that is sent next."""

    batch_id: str
    model: str
    line: int


class Window:
    """How many requests may be in progress for one model."""

    __slots__ = ("_halved_at", "_size", "_throttled", "in_progress", "resumes_at")

    def __init__(self) -> None:
        self.in_progress = 0
        self.resumes_at = 0.0
        """No request is sent before."""
        self._size = 1.0
        self._throttled = 0
        self._halved_at = float("-inf")

    @property
    def size(self) -> int:
        """The number of requests that may be in progress."""
        return int(self._size)

    def is_open(self, now: float) -> bool:
        """Whether a further request may be sent."""
        return self.in_progress < self.size and now >= self.resumes_at

    def succeeded(self, maximum: int) -> None:
        """Count a request that got its slot."""
        self._throttled = 0
        self._size = min(float(maximum), self._size + 1 / self._size)

    def throttled(self, now: float, delays: Backoff, retry_after: float | None = None) -> None:
        """Count a request for which there was no slot."""
        if now < self._halved_at + HALVE_SECONDS:
            return
        self._halved_at = now
        self._throttled += 1
        self._size = max(1.0, self._size / 2)
        delay = delays.delay(self._throttled)
        self.resumes_at = now + max(delay, min(retry_after or 0.0, delays.maximum))


class Job:
    """The lines of one batch that have not been sent."""

    def __init__(self, batch_id: str, owner: str, lines: Iterable[tuple[str, int]]) -> None:
        self.batch_id = batch_id
        self.owner = owner
        self.pending: dict[str, deque[int]] = {}
        """Lines by model; the model whose turn it is first."""
        for model, line in lines:
            self.add(model, line)

    def add(self, model: str, line: int) -> None:
        """Add a line."""
        self.pending.setdefault(model, deque()).append(line)


class Scheduler:
    """Selects requests. `maximum`: requests in progress, of all models together."""

    def __init__(self, maximum: int) -> None:
        self.in_progress = 0
        self._maximum = maximum
        self._windows: dict[str, Window] = {}
        self._owners: dict[str, dict[str, Job]] = {}  # the one whose turn it is first

    def add(self, job: Job) -> None:
        """Add a batch."""
        self._owners.setdefault(job.owner, {})[job.batch_id] = job

    def remove(self, owner: str, batch_id: str) -> None:
        """Remove a batch; its requests in progress are unaffected."""
        jobs = self._owners.get(owner, {})
        jobs.pop(batch_id, None)
        if not jobs:
            self._owners.pop(owner, None)

    def find(self, owner: str, batch_id: str) -> Job | None:
        """Return a batch."""
        return self._owners.get(owner, {}).get(batch_id)

    def start(self, now: float, owners: Iterable[str]) -> Next | None:
        """Return the next request of these owners, and count it; None: none can be sent now."""
        if self.in_progress >= self._maximum:
            return None
        able = set(owners)
        for owner in list(self._owners):
            jobs = self._owners[owner]
            for batch_id in list(jobs) if owner in able else ():
                job = jobs[batch_id]
                model = self._open_model(job, now)
                if model is None:
                    continue
                line = job.pending[model].popleft()
                rest = job.pending.pop(model)
                if rest:
                    job.pending[model] = rest
                jobs[batch_id] = jobs.pop(batch_id)
                self._owners[owner] = self._owners.pop(owner)
                self.in_progress += 1
                self.window(model).in_progress += 1
                return Next(batch_id, model, line)
        return None

    def window(self, model: str) -> Window:
        """Return the window of a model."""
        return self._windows.setdefault(model, Window())

    def ended(self, model: str) -> None:
        """Count the end of a request, whatever its result."""
        self.in_progress -= 1
        self._windows[model].in_progress -= 1

    def succeeded(self, model: str) -> None:
        """Count a request that got its slot."""
        self._windows[model].succeeded(self._maximum)

    def throttled(
        self, model: str, now: float, delays: Backoff, retry_after: float | None = None
    ) -> None:
        """Count a request for which there was no slot."""
        self._windows[model].throttled(now, delays, retry_after)

    def resumes_at(self, now: float) -> float | None:
        """Return when the next window opens because of the time; None: none does."""
        times = [window.resumes_at for window in self._windows.values() if window.resumes_at > now]
        return min(times, default=None)

    def forget_idle_windows(self) -> None:
        """Forget the models that no batch needs."""
        needed = {
            model
            for jobs in self._owners.values()
            for job in jobs.values()
            for model in job.pending
        }
        for model in [each for each in self._windows if each not in needed]:
            if not self._windows[model].in_progress:
                del self._windows[model]

    def _open_model(self, job: Job, now: float) -> str | None:
        return next((each for each in job.pending if self.window(each).is_open(now)), None)
