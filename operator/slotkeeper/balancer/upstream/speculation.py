"""Speculative decoding of the replicas: whether they do it, and how many guesses are right."""

from collections.abc import Callable, Coroutine
from typing import Any

from slotkeeper.api.demand_report import SpeculationReport
from slotkeeper.balancer.upstream.aggregate import Aggregate
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.llamacpp.acceptance import AcceptanceRate, Guesses, guesses


class Speculation:
    """Reads the replicas' metrics whenever it is asked for, for the next time."""

    def __init__(
        self,
        replicas: ReplicaSet,
        aggregate: Aggregate,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float],
    ) -> None:
        self._replicas = replicas
        self._aggregate = aggregate
        self._spawn = spawn
        self._now = now
        self._rate = AcceptanceRate()

    def guesses(self) -> Guesses:
        """Return the counts of all replicas, as of the last time that they were read."""
        return guesses(self._aggregate.last_metrics)

    def report(self) -> SpeculationReport:
        """Return what the operator reports."""
        self._rate.record(self.guesses(), self._now())
        self._spawn(self._aggregate.update_metrics())
        return SpeculationReport(self._replicas.without_speculation, self._rate.percent)
