"""Whether there is a replica, or is any hope of one; and so how long it is of use to wait."""

from dataclasses import dataclass

from slotkeeper.api.blocker import StartBlocker


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many may wait, and how long."""

    max_queued: int = 1000
    """Requests; one more is refused."""
    max_queued_bytes: int = 128 * 1024 * 1024
    """Their bodies together."""
    queue_timeout: float = 60.0
    """Seconds in the queue while there are replicas."""
    cold_start_timeout: float = 570.0
    """Seconds in the queue while there are none: a first one may be loading its model. OpenAI's
    clients give up after 600, and would never hear why."""
    blocked_timeout: float = 10.0
    """Seconds in the queue while none can start. Not 0: what has just been mended is tried anew,
    and whoever looks at the demand once a second must see that somebody asks."""


class Availability:
    """What is known of the replicas to come."""

    def __init__(self) -> None:
        self.obstacle: StartBlocker | None = None
        """What keeps replicas from starting, as far as anybody knows."""
        self._refuted: StartBlocker | None = None
        self._available_since: float | None = None
        self._blocked_since: float | None = None

    @property
    def has_replica(self) -> bool:
        """There is a replica that takes requests."""
        return self._available_since is not None

    @property
    def retry_after(self) -> float:
        """Seconds after which it is of use to ask again while there is no replica."""
        return 30.0 if self.obstacle else 5.0

    def set_has_replica(self, usable: bool, now: float) -> None:
        """There is a replica that takes requests, or there is none."""
        if not usable:
            self._available_since = None
        elif self._available_since is None:
            self._available_since = now
            # With the operator down nobody takes it back, and the next one may come as well.
            self._refuted = self.obstacle
            self.obstacle = None
            self._blocked_since = None

    def set_blocked(self, obstacle: StartBlocker | None, now: float) -> None:
        """This keeps replicas from starting; None: nothing is known to."""
        if obstacle and obstacle == self._refuted:
            return
        self.obstacle = obstacle
        self._refuted = None
        if obstacle is None or not obstacle.permanent:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = now

    def deadline(self, arrived: float, bounds: QueueLimits) -> float:
        """When one that came at `arrived` will have waited too long. Who came later waits longer.

        The time for busy replicas begins when there are any: the first replica after none must not
        find everyone overdue. Flapping replicas can lengthen a wait to both limits together and no
        more. The time without hope begins when that is known, for it may be a passing mishap.
        """
        latest = arrived + bounds.cold_start_timeout
        if self._available_since is not None:
            started = max(arrived, self._available_since)
            return min(started + bounds.queue_timeout, latest + bounds.queue_timeout)
        if self._blocked_since is not None:
            return min(latest, max(arrived, self._blocked_since) + bounds.blocked_timeout)
        return latest
