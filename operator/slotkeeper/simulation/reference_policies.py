"""How others scale the same server: a HorizontalPodAutoscaler by three numbers, or KubeAI.

The HorizontalPodAutoscaler as Kubernetes documents it for autoscaling/v2 with its defaults: a look
every 15 s asks for `ceil(replicas * value / target)`, or for no change within a tenth of the
target. Replicas that are not ready count with 0 where more are asked for, and as at their target
where fewer are. What is asked for comes at once, but at most twice as many or 4 more within 15 s;
fewer come after all looks of 5 minutes have asked for fewer. KubeAI as its documentation says: a
look every 10 s asks for `ceil(mean over 10 minutes of the requests in flight / target)`, which
comes at once where it is more, and after 30 s of such looks where it is fewer.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from slotkeeper.simulation.simulate import Observation, Scaler


@dataclass(frozen=True)
class PolicyBounds:
    """What every policy keeps to alike."""

    slots: int
    """Slots of one replica."""
    least: int
    most: int
    down_seconds: float | None = None
    """How long fewer must have been asked for; None: as long as is the system's default."""

    def of(self, replicas: int) -> int:
        """The nearest number that is allowed."""
        return min(max(replicas, self.least), self.most)

    def down_after(self, default: float) -> float:
        """How many seconds fewer must have been asked for."""
        return default if self.down_seconds is None else self.down_seconds


Values = Callable[[Observation], Sequence[float]]
"""What is measured of each ready replica; nothing where there is none."""


class Hpa:
    """A HorizontalPodAutoscaler on the mean of something over the replicas."""

    every = 15.0
    _DOWN_SECONDS = 300.0
    _TOLERANCE = 0.1

    def __init__(self, values: Values, target: float, bounds: PolicyBounds) -> None:
        self._values = values
        self._target = target
        self._bounds = bounds
        self._down_seconds = bounds.down_after(self._DOWN_SECONDS)
        self._asked: deque[tuple[float, int]] = deque()

    def wanted(self, look: Observation) -> int:
        """How many replicas there should be after this look."""
        now = look.sample.at
        current = look.current
        asked = self._bounds.of(self._ask(self._values(look), current))
        if not self._asked:
            # What there is counts as asked for before.
            self._asked.append((now, current))
        self._asked.append((now, asked))
        while self._asked[0][0] <= now - self._down_seconds:
            self._asked.popleft()
        if asked < current:
            return min(current, max(number for _, number in self._asked))
        return min(asked, max(2 * current, current + 4))

    def _ask(self, values: Sequence[float], current: int) -> int:
        if not values:
            return current
        ready = len(values)
        ratio = sum(values) / len(values) / self._target
        if abs(ratio - 1) <= self._TOLERANCE:
            return current
        loading = current - ready
        if not loading:
            return ceil(ratio * ready)
        assumed = 0.0 if ratio > 1 else self._target
        cautious = (sum(values) + loading * assumed) / current / self._target
        if abs(cautious - 1) <= self._TOLERANCE or (cautious > 1) != (ratio > 1):
            return current
        return ceil(cautious * current)


class MovingAverage:
    """KubeAI's way: the mean of the requests in flight over ten minutes."""

    every = 10.0
    _LOOKS = 60
    _DOWN_SECONDS = 30.0

    def __init__(self, target: float, bounds: PolicyBounds) -> None:
        self._target = target
        self._bounds = bounds
        self._looks_before_fewer = ceil(bounds.down_after(self._DOWN_SECONDS) / self.every)
        self._seen: deque[int] = deque(maxlen=self._LOOKS)
        self._fewer = 0

    def wanted(self, look: Observation) -> int:
        """How many replicas there should be after this look."""
        self._seen.append(look.sample.busy_slots + look.sample.queued)
        mean = sum(self._seen) / len(self._seen)
        asked = self._bounds.of(ceil(mean / self._target))
        self._fewer = self._fewer + 1 if asked < look.current else 0
        if 0 < self._fewer < self._looks_before_fewer:
            return look.current
        self._fewer = 0
        return asked


def _gpu(target: float, bounds: PolicyBounds) -> Scaler:
    return Hpa(lambda look: [float(busy > 0) for busy in look.busy], target, bounds)


def _processing(target: float, bounds: PolicyBounds) -> Scaler:
    return Hpa(lambda look: [float(busy) for busy in look.busy], target * bounds.slots, bounds)


def _queue(target: float, bounds: PolicyBounds) -> Scaler:
    def waiting(look: Observation) -> Sequence[float]:
        return [look.sample.queued / len(look.busy)] * len(look.busy)

    return Hpa(waiting, target * bounds.slots, bounds)


def _average(target: float, bounds: PolicyBounds) -> Scaler:
    return MovingAverage(target * bounds.slots, bounds)


@dataclass(frozen=True)
class Peer:
    """Another way to scale, and how it is set where nobody says it."""

    about: str
    make: Callable[[float, PolicyBounds], Scaler]
    target: float
    """In parts of what one replica can do at a time."""


PEERS: Mapping[str, Peer] = {
    "gpu": Peer("HPA on GPU utilisation: a GPU is busy while any slot is", _gpu, 0.8),
    "processing": Peer("HPA on llama-server's requests_processing", _processing, 0.8),
    "queue": Peer("HPA on waiting requests for each replica", _queue, 0.25),
    "average": Peer("KubeAI: mean of the requests in flight over 10 min", _average, 0.8),
}
"""What `--compare` knows, by name."""
