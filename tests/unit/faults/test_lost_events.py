"""Whatever watches lose, hold back or say twice: nothing breaks, and a listing mends it."""

from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest

from fake_cluster import FakeCluster
from operating import Operator, roll_out
from scenarios import SCENARIOS, collected, outcome, settled, tried
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, WatchEvent
from slotkeeper.kube.kinds import CHILDREN, LLAMA_SERVERS, PODS

SEEDS = range(6)
LOOKS = 3
"""How often the operator acts on what it was shown, after each step."""


@dataclass
class BadWatches:
    """One watch a kind, none of which is to be relied on."""

    operator: Operator
    cluster: FakeCluster
    rng: Random
    _seen: dict[Kind, str] = field(default_factory=dict)
    _late: dict[Kind, deque[WatchEvent]] = field(default_factory=dict)

    async def show(self) -> None:
        """Show some of what is new: in each kind's order, as a watch keeps it."""
        for kind in (LLAMA_SERVERS, *CHILDREN, PODS):
            late = self._late.setdefault(kind, deque())
            labels = None if kind == LLAMA_SERVERS else {names.SERVER_LABEL: ""}
            version = self._seen.get(kind, "1")
            async for event in self.cluster.watch(kind, None, labels, version):
                self._seen[kind] = event.object["metadata"]["resourceVersion"]
                late.append(event)
            for _ in range(self.rng.randint(0, len(late))):
                self._show(late.popleft())

    def _show(self, event: WatchEvent) -> None:
        lost, twice = self.rng.random() < 0.3, self.rng.random() < 0.2
        for _ in range(0 if lost else 2 if twice else 1):
            self.operator.store.shown(event)


async def finished(cluster: FakeCluster, operator: Operator) -> None:
    """All is listed, and Kubernetes and the operator come to an end."""
    for _ in range(3):
        operator.lists_anew()
        await settled(operator, cluster)
        collected(cluster)
        roll_out(cluster)
    await settled(operator, cluster)


async def played(scenario: str) -> FakeCluster:
    cluster = FakeCluster()
    operator = Operator(cluster)
    for step in SCENARIOS[scenario]:
        step(cluster)
        await settled(operator, cluster)
    await finished(cluster, operator)
    return cluster


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_it_ends_where_it_would_have_ended(scenario: str, seed: int) -> None:
    undisturbed, cluster = await played(scenario), FakeCluster()
    operator = Operator(cluster)
    watches = BadWatches(operator, cluster, Random(seed))

    for step in SCENARIOS[scenario]:
        step(cluster)
        for _ in range(LOOKS):
            await watches.show()
            await tried(operator, sees=False)
    await finished(cluster, operator)

    assert outcome(cluster) == outcome(undisturbed)
    deleted = {write for write in cluster.writes if write.verb == "delete"}
    assert deleted <= {write for write in undisturbed.writes if write.verb == "delete"}
