"""Whatever watches lose, merge, hold back or say twice, and lists say late: nothing breaks."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, roll_out
from scenarios import SCENARIOS, collected, outcome, settled, tried
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, WatchEvent
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, PODS, STATEFUL_SETS
from slotkeeper.reconcile.watch.informers import list_into

SEEDS = range(6)
LOOKS = 3
"""How often the operator acts on what it was shown, after each step."""

KINDS = (LLAMA_SERVERS, *CHILDREN, PODS)


@dataclass
class BadNews:
    """Watches and lists that are not to be relied on."""

    operator: Operator
    cluster: FakeCluster
    rng: Random
    _seen: dict[Kind, str] = field(default_factory=dict)
    _late: dict[Kind, deque[WatchEvent]] = field(default_factory=dict)
    _old: list[FakeCluster] = field(default_factory=list)

    async def show(self) -> None:
        """Show some of what is new: in each kind's order, as a watch keeps it."""
        self._old.append(self.cluster.copy())
        for kind in KINDS:
            late = self._late.setdefault(kind, deque())
            labels = None if kind == LLAMA_SERVERS else {names.SERVER_LABEL: ""}
            version = self._seen.get(kind, "1")
            async for event in self.cluster.watch(kind, None, labels, version):
                self._seen[kind] = event.object["metadata"]["resourceVersion"]
                late.append(event)
            if self.rng.random() < 0.2:
                late = self._late[kind] = deque(merged(late))
            for _ in range(self.rng.randint(0, len(late))):
                self._show(late.popleft())
            if self.rng.random() < 0.1:
                # What a server of the API that is behind the others lists.
                await list_into(self.operator.store, self.rng.choice(self._old), kind, None)

    def _show(self, event: WatchEvent) -> None:
        lost, twice = self.rng.random() < 0.3, self.rng.random() < 0.2
        for _ in range(0 if lost else 2 if twice else 1):
            self.operator.store.apply_event(event)


def merged(events: Iterable[WatchEvent]) -> Iterator[WatchEvent]:
    """Of each object its last event only: one that went and came again was just changed."""
    last = {event.object["metadata"]["name"]: event for event in events}
    for event in last.values():
        yield event if event.type == "DELETED" else WatchEvent("MODIFIED", event.object)


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
    news = BadNews(operator, cluster, Random(seed))

    for step in SCENARIOS[scenario]:
        step(cluster)
        for _ in range(LOOKS):
            await news.show()
            await tried(operator, sees=False)
    await finished(cluster, operator)

    assert outcome(cluster) == outcome(undisturbed)
    autoscaled = scenario == "scaled"
    for place, passed in states(cluster, autoscaled=autoscaled).items():
        # It may have skipped some of them, and has gone back to none.
        rest = iter(states(undisturbed, autoscaled=autoscaled)[place])
        assert all(state in rest for state in passed), place
    deleted = [write for write in cluster.writes if write.verb == "delete"]
    for write in deleted:
        assert deleted.count(write) <= undisturbed.writes.count(write)


def states(cluster: FakeCluster, *, autoscaled: bool) -> dict[Any, list[Any]]:
    """What the pods' makers were told one after the other: how many pods, and what they run."""
    found: dict[Any, list[Any]] = {}
    for change in cluster.history:
        manifest = change.after
        if manifest is None or manifest["kind"] not in {DEPLOYMENTS.kind, STATEFUL_SETS.kind}:
            continue
        spec = manifest["spec"]
        # A scaler's number comes of how many there were.
        replicas = None if autoscaled else spec["replicas"]
        state = replicas, spec["template"]["spec"]["containers"]
        passed = found.setdefault((manifest["kind"], manifest["metadata"]["name"]), [])
        if passed[-1:] != [state]:
            passed.append(state)
    return found
