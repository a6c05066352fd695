"""Random faults of a cluster, and restarts of its operator."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from typing_extensions import override

from fake_cluster import FakeCluster, Place
from operator_harness import KEY, FakeBalancers, FakeTime, Operator, roll_out
from scenarios import collect_garbage
from slotkeeper.kube.cluster import ApiError, Conflict, Kind, Manifest, Unreachable
from slotkeeper.kube.kinds import CHILDREN, SERVICES
from slotkeeper.kube.objects import Key

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
class Disturbance(ABC):
    """A cluster with an operator, and what may happen to them and the children of one resource."""

    rng: Random
    cluster: FakeCluster = field(default_factory=FakeCluster)
    time: FakeTime = field(default_factory=FakeTime)
    balancers: FakeBalancers = field(default_factory=FakeBalancers)
    request_ids: Iterator[int] = field(default_factory=itertools.count)
    key: ClassVar[Key]
    """Of the resource."""
    kinds: ClassVar[list[Kind | None]]
    """The kinds whose writes fail; None: all."""

    def __post_init__(self) -> None:
        self.operator = Operator(self.cluster, self.time, self.balancers)

    @property
    def common_steps(self) -> list[Callable[[], object]]:
        """What may happen, apart from what users do with the resource."""
        return [
            *(self.cause_drift, self.delete_child, self.take_name, self.change_pods),
            *(self.inject_error, self.inject_error, self.lose_response, self.recover),
            *(self.restart, self.relist, self.collect_garbage),
        ]

    @abstractmethod
    def children(self) -> list[Place]:
        """The children that others change."""

    @abstractmethod
    def collect_garbage(self) -> None:
        """Delete children whose owner is deleted, and what took the Service's name."""

    async def run_for(self, seconds: int) -> None:
        """Run the operator for some seconds."""
        await self.operator.run_for(seconds)

    def cause_drift(self) -> None:
        """Change a child: other replicas, or no labels."""
        replicas = self.rng.randint(0, 5)

        def change(item: Any) -> None:
            if item["kind"] in {"Deployment", "StatefulSet"}:
                item["spec"]["replicas"] = replicas
            else:
                item["metadata"]["labels"] = {}

        if children := self.children():
            self.cluster.edit(*self.rng.choice(children), change)

    def delete_child(self) -> None:
        """Delete a child."""
        if children := self.children():
            self.cluster.remove(*self.rng.choice(children))

    def take_name(self) -> None:
        """Replace the clients' Service by one that the resource does not own."""
        service = (SERVICES, *self.key)
        if service in self.cluster.objects:
            self.cluster.remove(*service)
        metadata = {**self.key._asdict(), "ownerReferences": []}
        self.cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata})

    def change_pods(self) -> None:
        """Roll out the Deployments; often their pods become ready."""
        roll_out(self.cluster, ready=self.rng.random() < 0.7)

    def inject_error(self) -> None:
        """Let writes fail with a random error, of one verb and one kind."""
        choice = self.rng.choice
        self.cluster.fail(choice(ERRORS), choice(VERBS), choice(self.kinds))
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

    async def finish(self) -> None:
        """End all faults, and run Kubernetes and the operator until nothing changes."""
        self.recover()
        self.balancers.reports.clear()
        for _ in range(3):
            self.collect_garbage()
            roll_out(self.cluster)
            self.operator.relist()
            # Longer than the maximum of each back-off.
            await self.run_for(310)


class DisturbedServer(Disturbance):
    """A cluster with one server and its operator."""

    key = KEY

    @override
    def children(self) -> list[Place]:
        return [place for place in self.cluster.objects if place[0] in CHILDREN]

    @override
    def collect_garbage(self) -> None:
        self.free_name()
        collect_garbage(self.cluster)

    def free_name(self) -> None:
        """Delete what took the name of the clients' Service."""
        service = (SERVICES, *self.key)
        found = self.cluster.objects.get(service)
        if found and not found["metadata"]["ownerReferences"]:
            self.cluster.remove(*service)
