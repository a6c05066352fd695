"""Random faults, changes by users and others, and restarts, at any time: nothing is left of them.

Afterwards the server is as one that was created with its last spec, and the operator writes nothing
more. At no time does a server cause passes in a loop.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from typing_extensions import override

from disturbance import DisturbedServer
from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    demand_report,
    update_spec,
)
from scenarios import delete_server, final_state, reconcile_until_stable
from slotkeeper.kube.cluster import Kind
from slotkeeper.kube.kinds import (
    CHILDREN,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    LLAMA_SERVERS,
    SERVICES,
    STATEFUL_SETS,
)

SEEDS = range(60)
STEPS = 20
MAX_SECONDS = 20
"""Of a step."""

KINDS: list[Kind | None] = [
    None,
    DEPLOYMENTS,
    STATEFUL_SETS,
    SERVICES,
    LEASES,
    LLAMA_SERVERS,
    EVENTS,
]

SPECS: list[dict[str, Any]] = [
    *({"replicas": replicas} for replicas in (0, 1, 3)),
    *({"slots": slots} for slots in (0, 2, 4)),
    *({"suspend": suspend} for suspend in (False, True)),
    *({"workers": workers} for workers in (None, {"count": 1}, {"count": 2})),
    {"autoscaling": None},
    {"autoscaling": {"maxReplicas": 3}},
    {"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 30}},
]


class World(DisturbedServer):
    """A cluster with one server and its operator, and what may happen to them."""

    kinds = KINDS

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        apply_server(self.cluster)

    @property
    def steps(self) -> list[Callable[[], object]]:
        return [
            *(self.change_spec, self.change_spec, self.recreate_server, self.change_demand),
            *self.common_steps,
        ]

    def change_spec(self) -> None:
        if KEY.name in self.cluster.by_name(LLAMA_SERVERS):
            update_spec(self.cluster, **self.rng.choice(SPECS))

    def recreate_server(self) -> None:
        if KEY.name in self.cluster.by_name(LLAMA_SERVERS):
            delete_server(self.cluster)
        if self.rng.random() < 0.5:
            apply_server(self.cluster)

    def change_demand(self) -> None:
        self.balancers.reports.clear()
        if self.rng.random() < 0.8:
            report = demand_report(busy=self.rng.randint(0, 8), queued=self.rng.choice([0, 0, 3]))
            self.balancers.reports[BALANCER_HOST] = report


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_left_of_random_faults(seed: int) -> None:
    rng = Random(seed)
    world = World(rng)

    for _ in range(STEPS):
        rng.choice(world.steps)()
        seconds, before = rng.randint(1, MAX_SECONDS), len(world.operator.passes)
        await world.operator.run_for(seconds)
        assert len(world.operator.passes) - before <= 40 + 12 * seconds
    await world.finish()
    world.cluster.writes.clear()
    await world.operator.run_for(100)

    assert world.cluster.writes == []
    assert not world.operator.queue.is_failing(KEY)
    if KEY.name not in world.cluster.by_name(LLAMA_SERVERS):
        assert world.operator.states._states == {}
    elif state := world.operator.states.find(KEY):
        assert (state.events, state.unreported, state.unapplied) == ([], None, None)
        assert children(world.cluster) == children(await created_anew(world.cluster))


async def created_anew(cluster: FakeCluster) -> FakeCluster:
    """Another cluster, in which the server was created with the spec that it has in this one."""
    spec = cluster.by_name(LLAMA_SERVERS)[KEY.name]["spec"]
    other = FakeCluster()
    apply_server(other)
    other.edit(LLAMA_SERVERS, *KEY, lambda raw: raw.update(spec=spec))
    await reconcile_until_stable(Operator(other), other)
    return other


def children(cluster: FakeCluster) -> dict[Any, Any]:
    spec = cluster.by_name(LLAMA_SERVERS)[KEY.name]["spec"]
    found = {place: item for place, item in final_state(cluster).items() if place[0] in CHILDREN}
    for item in found.values() if spec.get("autoscaling") else ():
        # Their number depends on the earlier number, and on demand.
        if "replicas" in item.get("spec", {}):
            item["spec"] = {**item["spec"], "replicas": ...}
    return found
