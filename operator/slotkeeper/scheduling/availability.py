"""Replica availability, and the queue timeout that follows from it."""

from dataclasses import dataclass

from slotkeeper.api.blocker import StartBlocker


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits on the number, the size and the queue time of queued requests."""

    max_queued: int = 1000
    """Requests; the next one is rejected."""
    max_queued_bytes: int = 128 * 1024 * 1024
    """Total size of their bodies."""
    queue_timeout: float = 60.0
    """Seconds in the queue while any replica is ready."""
    cold_start_timeout: float = 570.0
    """Seconds in the queue while no replica is ready: the first may be loading its model. OpenAI's
    clients time out after 600, and would not receive the reason."""
    blocked_timeout: float = 10.0
    """Seconds in the queue while no replica can start. Not 0: a start may succeed once its blocker
    has been fixed, and an autoscaler that polls the demand once a second must see the request."""


class Availability:
    """Whether any replica is ready and, if not, what prevents replicas from starting."""

    def __init__(self) -> None:
        self.start_blocker: StartBlocker | None = None
        """What prevents replicas from starting, as last reported; None if unknown."""
        self._refuted: StartBlocker | None = None
        self._available_since: float | None = None
        self._blocked_since: float | None = None

    @property
    def has_replica(self) -> bool:
        """Whether any replica accepts requests."""
        return self._available_since is not None

    @property
    def cold_start_retry_after(self) -> float:
        """Seconds after which a rejected client should retry while no replica is ready."""
        return 30.0 if self.start_blocker else 5.0

    def set_has_replica(self, has_replica: bool, now: float) -> None:
        """Set whether any replica accepts requests."""
        if not has_replica:
            self._available_since = None
        elif self._available_since is None:
            self._available_since = now
            # A replica has started in spite of the blocker, so the next one may as well; while the
            # operator is down, nothing withdraws it.
            self._refuted = self.start_blocker
            self.start_blocker = None
            self._blocked_since = None

    def set_blocked(self, blocker: StartBlocker | None, now: float) -> None:
        """Set what prevents replicas from starting; None if unknown."""
        if blocker and blocker == self._refuted:
            return
        self.start_blocker = blocker
        self._refuted = None
        if blocker is None or not blocker.permanent:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = now

    def deadline(self, arrived: float, limits: QueueLimits) -> float:
        """Return the deadline of a request; a later arrival never has an earlier one.

        With a ready replica: queue_timeout from arrival or readiness, whichever is later, since
        otherwise the first replica after none would find every queued request timed out. Flapping
        replicas can extend a wait to both limits together and no further. Without a replica:
        cold_start_timeout from arrival. With a permanent blocker: blocked_timeout from arrival or
        from when the blocker became known, whichever is later, since it may be a transient error.
        """
        latest = arrived + limits.cold_start_timeout
        if self._available_since is not None:
            start = max(arrived, self._available_since)
            return min(start + limits.queue_timeout, latest + limits.queue_timeout)
        if self._blocked_since is not None:
            return min(latest, max(arrived, self._blocked_since) + limits.blocked_timeout)
        return latest
