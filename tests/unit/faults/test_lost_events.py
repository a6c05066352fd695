"""Lost, late, merged and repeated watch events, and late listings, do not change the result."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from typing_extensions import override

from fake_cluster import FakeCluster
from operator_harness import Operator, roll_out
from scenarios import (
    SCENARIOS,
    collect_garbage,
    delete_server,
    final_state,
    reconcile_until_stable,
    report_headers,
    try_reconcile,
)
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, Listing, WatchEvent
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, STATEFUL_SETS
from slotkeeper.reconcile.watch.informers import INFORMED, list_into

SEEDS = range(6)
PASSES = 3
"""Passes after each step, each after some watch events."""

KINDS = (LLAMA_SERVERS, *INFORMED)


class SlowListing(FakeCluster):
    """An API server whose response to a listing arrives late."""

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__()
        self.restore(cluster)
        self.arrives = asyncio.Event()

    @override
    async def pages(self, *arguments: Any) -> AsyncIterator[Listing]:
        await self.arrives.wait()
        async for page in super().pages(*arguments):
            yield page


@dataclass
class UnreliableWatches:
    """Delivers some watch events to the operator's store, and loses others."""

    operator: Operator
    cluster: FakeCluster
    rng: Random
    _versions: dict[Kind, str] = field(default_factory=dict)
    _pending: dict[Kind, deque[WatchEvent]] = field(default_factory=dict)
    _listings: list[tuple[SlowListing, asyncio.Task[Any]]] = field(default_factory=list)

    async def deliver_some(self) -> None:
        """Deliver some of the new events, in the order of each kind, as a watch does."""
        for kind in KINDS:
            pending = self._pending.setdefault(kind, deque())
            labels = None if kind == LLAMA_SERVERS else {names.SERVER_LABEL: ""}
            version = self._versions.get(kind, "1")
            async for event in self.cluster.watch(kind, None, labels, version):
                self._versions[kind] = event.object["metadata"]["resourceVersion"]
                pending.append(event)
            if self.rng.random() < 0.2:
                pending = self._pending[kind] = deque(merged(pending))
            for _ in range(self.rng.randint(0, len(pending))):
                self._deliver(pending.popleft())
            if self.rng.random() < 0.2:
                slow = SlowListing(self.cluster)
                listing = asyncio.create_task(list_into(self.operator.store, slow, kind, None))
                self._listings.append((slow, listing))
                await asyncio.sleep(0)
            if self._listings and self.rng.random() < 0.1:
                await self._finish(self._listings.pop(self.rng.randrange(len(self._listings))))

    async def finish(self) -> None:
        """Let the last listings arrive."""
        while self._listings:
            await self._finish(self._listings.pop())

    async def _finish(self, listing: tuple[SlowListing, asyncio.Task[Any]]) -> None:
        slow, task = listing
        slow.arrives.set()
        await task

    def _deliver(self, event: WatchEvent) -> None:
        lost, twice = self.rng.random() < 0.3, self.rng.random() < 0.2
        for _ in range(0 if lost else 2 if twice else 1):
            self.operator.store.apply_event(event)


def merged(events: Iterable[WatchEvent]) -> Iterator[WatchEvent]:
    """Only the last event of each object: a deleted and recreated object was MODIFIED."""
    last = {event.object["metadata"]["name"]: event for event in events}
    for event in last.values():
        yield event if event.type == "DELETED" else WatchEvent("MODIFIED", event.object)


async def finish(cluster: FakeCluster, operator: Operator) -> None:
    """List everything, and run Kubernetes and the operator until nothing changes."""
    for _ in range(3):
        operator.relist()
        await reconcile_until_stable(operator, cluster)
        collect_garbage(cluster)
        report_headers(cluster)
        roll_out(cluster)
    await reconcile_until_stable(operator, cluster)


async def run_undisturbed(scenario: str) -> FakeCluster:
    cluster = FakeCluster()
    operator = Operator(cluster)
    for step in SCENARIOS[scenario]:
        step(cluster)
        await reconcile_until_stable(operator, cluster)
    await finish(cluster, operator)
    return cluster


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_unreliable_watches_do_not_change_the_final_state(scenario: str, seed: int) -> None:
    undisturbed, cluster = await run_undisturbed(scenario), FakeCluster()
    operator = Operator(cluster)
    watches = UnreliableWatches(operator, cluster, Random(seed))

    for step in SCENARIOS[scenario]:
        step(cluster)
        for _ in range(PASSES):
            await watches.deliver_some()
            await try_reconcile(operator, deliver_events=False)
    await watches.finish()
    await finish(cluster, operator)

    assert final_state(cluster) == final_state(undisturbed)
    autoscaled = scenario == "scaled"
    for place, specified in workloads(cluster, autoscaled=autoscaled).items():
        # Some may be skipped; none is returned to.
        rest = iter(workloads(undisturbed, autoscaled=autoscaled)[place])
        assert all(state in rest for state in specified), place
    deleted = [write for write in cluster.writes if write.verb == "delete"]
    for write in deleted:
        assert deleted.count(write) <= undisturbed.writes.count(write)


def workloads(cluster: FakeCluster, *, autoscaled: bool) -> dict[Any, list[Any]]:
    """The successive replicas and containers of each Deployment and StatefulSet."""
    found: dict[Any, list[Any]] = {}
    for change in cluster.history:
        manifest = change.after
        if manifest is None or manifest["kind"] not in {DEPLOYMENTS.kind, STATEFUL_SETS.kind}:
            continue
        spec = manifest["spec"]
        # With autoscaling the number of replicas depends on the earlier number.
        replicas = None if autoscaled else spec["replicas"]
        state = replicas, spec["template"]["spec"]["containers"]
        states = found.setdefault((manifest["kind"], manifest["metadata"]["name"]), [])
        if states[-1:] != [state]:
            states.append(state)
    return found


RESTORED = [
    pytest.param(scenario, step, id=f"{scenario} {step}")
    for scenario, steps in SCENARIOS.items()
    for step in range(len(steps))
]


@pytest.mark.parametrize(("scenario", "step"), RESTORED)
async def test_after_the_restore_of_a_backup_the_operator_continues_from_it(
    scenario: str, step: int
) -> None:
    undisturbed, cluster = await run_undisturbed(scenario), FakeCluster()
    operator = Operator(cluster)
    steps = SCENARIOS[scenario]

    for each in steps[: step + 1]:
        each(cluster)
        await reconcile_until_stable(operator, cluster)
    backup = cluster.copy()
    for each in steps[step + 1 :]:
        each(cluster)
        await reconcile_until_stable(operator, cluster)
    if cluster.by_name(LLAMA_SERVERS):
        delete_server(cluster)
    await reconcile_until_stable(operator, cluster)
    collect_garbage(cluster)
    await reconcile_until_stable(operator, cluster)
    cluster.restore(backup)
    operator.relist()
    await reconcile_until_stable(operator, cluster)
    for each in steps[step + 1 :]:
        each(cluster)
        await reconcile_until_stable(operator, cluster)
    await finish(cluster, operator)

    assert final_state(cluster) == final_state(undisturbed)
