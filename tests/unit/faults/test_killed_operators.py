"""An operator that is killed after any write, or gets no response to it, ends in the same state."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from fake_cluster import FakeCluster, KilledError, Write
from operator_harness import Operator
from scenarios import SCENARIOS, final_state, reconcile_until_stable
from slotkeeper.kube.cluster import Unreachable


@dataclass(frozen=True)
class UndisturbedStep:
    """One step of a scenario without faults."""

    name: str
    before: FakeCluster
    """After the change by users and Kubernetes, before the operator's writes."""
    writes: list[Write]
    """Of the operator."""
    final_state: dict[Any, Any]


async def run_undisturbed(scenario: str) -> list[UndisturbedStep]:
    cluster, found = FakeCluster(), []
    operator = Operator(cluster)
    for number, step in enumerate(SCENARIOS[scenario], start=1):
        step(cluster)
        before = cluster.copy()
        cluster.writes.clear()
        await reconcile_until_stable(operator, cluster)
        name = f"{scenario}, step {number}"
        found.append(UndisturbedStep(name, before, list(cluster.writes), final_state(cluster)))
    return found


STEPS = [step for scenario in SCENARIOS for step in asyncio.run(run_undisturbed(scenario))]


EACH_WRITE = [
    pytest.param(step, number, id=f"{step.name}: {write.verb} {write.kind}")
    for step in STEPS
    for number, write in enumerate(step.writes, start=1)
]


def test_all_kinds_of_writes_are_disturbed() -> None:
    verbs = {write.verb for step in STEPS for write in step.writes}

    assert verbs == {"apply", "delete", "patch_status"}


@pytest.mark.parametrize(("step", "number"), EACH_WRITE)
async def test_an_operator_killed_after_any_write_ends_in_the_same_state(
    step: UndisturbedStep, number: int
) -> None:
    cluster = step.before.copy()
    cluster.raise_after_write = {number: KilledError()}

    with pytest.raises(KilledError):
        await reconcile_until_stable(Operator(cluster), cluster)
    await reconcile_until_stable(Operator(cluster), cluster)

    assert final_state(cluster) == step.final_state


@pytest.mark.parametrize(("step", "number"), EACH_WRITE)
async def test_a_lost_response_to_any_write_changes_nothing_else(
    step: UndisturbedStep, number: int
) -> None:
    cluster = step.before.copy()
    cluster.raise_after_write = {number: Unreachable(0, "Unreachable", "the connection was reset")}

    await reconcile_until_stable(Operator(cluster), cluster)

    assert final_state(cluster) == step.final_state


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_an_operator_that_starts_in_the_final_state_writes_nothing(
    step: UndisturbedStep,
) -> None:
    cluster = step.before.copy()
    await reconcile_until_stable(Operator(cluster), cluster)
    cluster.writes.clear()

    await reconcile_until_stable(Operator(cluster), cluster)

    assert cluster.writes == []
