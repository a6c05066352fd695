"""What a budget decision is based on: the budget, and the models that share it."""

from dataclasses import dataclass

from slotkeeper.scaling.budget.resources import ONE_MODEL, UNLIMITED, Resources

MAXIMUM_WAIT_SECONDS = 180.0
"""After it a model without a replica may take the place of one that is in use. Much sooner, models
would drain that will be idle for a moment anyway, and the budget would load instead of serve."""

MINIMUM_RESIDENCY_SECONDS = 10.0
"""Enough for the next request of the same program."""

_LEAST_LOAD_SECONDS = 1.0
"""A shorter load time is not distinguished: a replica is not created faster."""


@dataclass(frozen=True)
class Budget:
    """The limits that all models of a gateway share."""

    limit: Resources = UNLIMITED
    minimum_residency_seconds: float = MINIMUM_RESIDENCY_SECONDS
    """How long a loaded model is kept though it is idle."""
    maximum_wait_seconds: float = MAXIMUM_WAIT_SECONDS
    """How long a model waits before the least valuable one that is in use makes room for it."""


@dataclass(frozen=True)
class Model:
    """One model of a gateway, as observed."""

    name: str
    cost: Resources
    """GPUs and memory of one replica."""
    desired: int = 0
    """Replicas that its own autoscaling requires."""
    minimum: int = 0
    """Replicas that always run: minReplicas, or `replicas` without autoscaling."""
    ready: int = 0
    """Replicas that serve."""
    starting: int = 0
    """Replicas that are created and do not serve yet."""
    stopping: int = 0
    """Replicas that terminate: they occupy their resources until their pods are deleted."""
    busy: int = 0
    """Busy slots."""
    busy_replicas: int = 0
    """Replicas with a busy slot."""
    queued: int = 0
    preemptible: int = 0
    """Running and queued preemptible requests, which count in no other number."""
    oldest_queued_seconds: float = 0.0
    demand: float = 0.0
    """Mean demand over the last minutes, in slots."""
    load_seconds: float = 60.0
    """From the creation of a replica until it serves, as measured, or else estimated."""
    loaded_at: float | None = None
    """Since when it serves; None while it does not."""
    used_at: float | None = None
    """When a slot was busy or a request queued for the last time; None if never."""
    blocked: bool = False
    """Whether its replicas cannot start, for example because of an error of the model."""

    @property
    def alive(self) -> int:
        """Replicas that serve or will."""
        return self.ready + self.starting

    @property
    def required(self) -> int:
        """Replicas that it requires. At zero none without a request: its own autoscaling still
        counts those of the last seconds, which were completed before it was evicted."""
        if not self.alive and not (self.is_in_use or self.preemptible):
            return self.minimum
        return max(self.desired, self.minimum)

    @property
    def occupied(self) -> Resources:
        """What all its replicas occupy now."""
        total = self.alive + self.stopping
        return Resources().plus(self.cost, total).plus(ONE_MODEL, int(total > 0))

    @property
    def is_in_use(self) -> bool:
        """Whether there is a request for it that is not preemptible."""
        return self.busy > 0 or self.queued > 0

    @property
    def takes_only_free_room(self) -> bool:
        """Whether all requests for it are preemptible: no other model makes room for those."""
        return self.preemptible > 0 and not self.is_in_use

    @property
    def reload_seconds(self) -> float:
        """What evicting it costs."""
        return max(self.load_seconds, _LEAST_LOAD_SECONDS)

    def idle_seconds(self, now: float) -> float:
        """Seconds since there was a request for it, or since it was loaded."""
        if self.is_in_use:
            return 0.0
        last = max((at for at in (self.used_at, self.loaded_at) if at is not None), default=now)
        return max(now - last, 0.0)
