"""Random faults of a cluster, and restarts of its operator."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fake_cluster import FakeCluster
from operator_harness import FakeBalancers, FakeTime, Operator
from slotkeeper.kube.cluster import ApiError, Conflict, Kind, Manifest, Unreachable

ERRORS = [
    ApiError(403, "Forbidden", ""),
    ApiError(422, "Invalid", ""),
    ApiError(429, "TooManyRequests", ""),
    ApiError(500, "InternalError", ""),
    Conflict(409, "Conflict", ""),
    Unreachable(0, "Unreachable", ""),
]
"""Their messages contain a request id."""
VERBS = ["apply", "create", "delete", "patch_status"]


@dataclass
class Disturbance:
    """A cluster with an operator, and the faults that may happen to them."""

    rng: Random
    cluster: FakeCluster = field(default_factory=FakeCluster)
    time: FakeTime = field(default_factory=FakeTime)
    balancers: FakeBalancers = field(default_factory=FakeBalancers)
    request_ids: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.operator = Operator(self.cluster, self.time, self.balancers)

    def inject_error_of(self, kinds: list[Kind | None]) -> None:
        """Let writes fail with a random error, of one verb and one of these kinds; None: all."""
        choice = self.rng.choice
        self.cluster.fail(choice(ERRORS), choice(VERBS), choice(kinds))
        inject = self.cluster.inject_error

        def with_request_id(verb: str, manifest: Manifest) -> Exception | None:
            error = inject(verb, manifest)
            if isinstance(error, ApiError):
                error.message = f"request {next(self.request_ids)}"
            return error

        self.cluster.inject_error = with_request_id

    def lose_response(self) -> None:
        """Let one of the next writes succeed without a response."""
        number = len(self.cluster.writes) + self.rng.randint(1, 4)
        self.cluster.raise_after_write = {number: ERRORS[-1]}

    def recover(self) -> None:
        """End all faults."""
        self.cluster.recover()
        self.cluster.raise_after_write = {}

    def restart(self) -> None:
        """Replace the operator by a new one."""
        self.operator = Operator(self.cluster, self.time, self.balancers)

    def relist(self) -> None:
        """Let the operator list all objects again."""
        self.operator.relist()


def drift(replicas: int) -> Any:
    """A change of a child by somebody else: other replicas, or no labels."""

    def change(item: Any) -> None:
        if item["kind"] in {"Deployment", "StatefulSet"}:
            item["spec"]["replicas"] = replicas
        else:
            item["metadata"]["labels"] = {}

    return change
