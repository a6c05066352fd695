"""Reference policies to compare with: a HorizontalPodAutoscaler on three metrics, and KubeAI.

The HorizontalPodAutoscaler as Kubernetes documents it for autoscaling/v2, with its defaults. Every
15 s it requires `ceil(replicas * value / target)`, or no change within a tenth of the target.
Replicas that are not ready count with 0 when scaling up, and as at their target when scaling down.
Scale up at once, but to at most twice as many or 4 more within 15 s; scale down after every sample
of 5 minutes required fewer. KubeAI by its documentation: every 10 s it requires `ceil(mean over 10
minutes of the requests in flight / target)`; scale up at once, scale down after 30 s of samples
that required fewer.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from slotkeeper.simulation.simulate import Observation, Scaler


@dataclass(frozen=True)
class PolicyBounds:
    """The bounds that all policies share."""

    slots: int
    """Slots of one replica."""
    min_replicas: int
    max_replicas: int
    scale_down_seconds: float | None = None
    """Seconds for which fewer must have been required to scale down; None: the policy's default."""

    def clamp(self, replicas: int) -> int:
        """Return the nearest allowed number of replicas."""
        return min(max(replicas, self.min_replicas), self.max_replicas)

    def scale_down_after(self, default: float) -> float:
        """Return the seconds for which fewer must have been required to scale down."""
        return default if self.scale_down_seconds is None else self.scale_down_seconds


Values = Callable[[Observation], Sequence[float]]
"""Returns the metric of each ready replica; empty without any."""


class HorizontalPodAutoscaler:
    """A HorizontalPodAutoscaler on the mean of a metric over the replicas."""

    interval_seconds = 15.0
    _SCALE_DOWN_SECONDS = 300.0
    _TOLERANCE = 0.1

    def __init__(self, values: Values, target: float, bounds: PolicyBounds) -> None:
        self._values = values
        self._target = target
        self._bounds = bounds
        self._scale_down_seconds = bounds.scale_down_after(self._SCALE_DOWN_SECONDS)
        self._recommendations: deque[tuple[float, int]] = deque()

    def desired_replicas(self, observation: Observation) -> int:
        """Return the desired number of replicas after an observation."""
        now = observation.sample.at
        current = observation.current_replicas
        required = self._bounds.clamp(self._required(self._values(observation), current))
        if not self._recommendations:
            # The current replicas count as an earlier recommendation.
            self._recommendations.append((now, current))
        self._recommendations.append((now, required))
        while self._recommendations[0][0] <= now - self._scale_down_seconds:
            self._recommendations.popleft()
        if required < current:
            return min(current, max(replicas for _, replicas in self._recommendations))
        return min(required, max(2 * current, current + 4))

    def _required(self, values: Sequence[float], current: int) -> int:
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
        adjusted = (sum(values) + loading * assumed) / current / self._target
        if abs(adjusted - 1) <= self._TOLERANCE or (adjusted > 1) != (ratio > 1):
            return current
        return ceil(adjusted * current)


class MovingAverage:
    """KubeAI's policy: the mean of the requests in flight over ten minutes."""

    interval_seconds = 10.0
    _SAMPLES = 60
    _SCALE_DOWN_SECONDS = 30.0

    def __init__(self, target: float, bounds: PolicyBounds) -> None:
        self._target = target
        self._bounds = bounds
        self._scale_down_samples = ceil(
            bounds.scale_down_after(self._SCALE_DOWN_SECONDS) / self.interval_seconds
        )
        self._in_flight: deque[int] = deque(maxlen=self._SAMPLES)
        self._fewer_samples = 0

    def desired_replicas(self, observation: Observation) -> int:
        """Return the desired number of replicas after an observation."""
        self._in_flight.append(observation.sample.busy_slots + observation.sample.queued)
        mean = sum(self._in_flight) / len(self._in_flight)
        required = self._bounds.clamp(ceil(mean / self._target))
        current = observation.current_replicas
        self._fewer_samples = self._fewer_samples + 1 if required < current else 0
        if 0 < self._fewer_samples < self._scale_down_samples:
            return current
        self._fewer_samples = 0
        return required


def _gpu(target: float, bounds: PolicyBounds) -> Scaler:
    return HorizontalPodAutoscaler(
        lambda observation: [float(busy > 0) for busy in observation.busy_slots], target, bounds
    )


def _processing(target: float, bounds: PolicyBounds) -> Scaler:
    return HorizontalPodAutoscaler(
        lambda observation: [float(busy) for busy in observation.busy_slots],
        target * bounds.slots,
        bounds,
    )


def _queue(target: float, bounds: PolicyBounds) -> Scaler:
    def queued_per_replica(observation: Observation) -> Sequence[float]:
        ready = len(observation.busy_slots)
        return [observation.sample.queued / ready] * ready

    return HorizontalPodAutoscaler(queued_per_replica, target * bounds.slots, bounds)


def _average(target: float, bounds: PolicyBounds) -> Scaler:
    return MovingAverage(target * bounds.slots, bounds)


@dataclass(frozen=True)
class ReferencePolicy:
    """A policy to compare with, and its default target."""

    description: str
    create: Callable[[float, PolicyBounds], Scaler]
    default_target: float
    """As a share of a replica's slots (its GPU for `gpu`)."""


REFERENCE_POLICIES: Mapping[str, ReferencePolicy] = {
    "gpu": ReferencePolicy("HPA on GPU utilization: a GPU is busy while any slot is", _gpu, 0.8),
    "processing": ReferencePolicy("HPA on llama-server's requests_processing", _processing, 0.8),
    "queue": ReferencePolicy("HPA on queued requests per replica", _queue, 0.25),
    "average": ReferencePolicy("KubeAI: mean requests in flight over 10 min", _average, 0.8),
}
"""By their name in `--compare`."""
