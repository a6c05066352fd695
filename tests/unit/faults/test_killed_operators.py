"""An operator that dies, or hears no answer, after any of its writes ends where it would have."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from fake_cluster import FakeCluster, KilledError, Write
from operator_harness import Operator
from scenarios import SCENARIOS, outcome, settled
from slotkeeper.kube.cluster import Unreachable


@dataclass(frozen=True)
class Played:
    """One step of a scenario, undisturbed."""

    name: str
    before: FakeCluster
    """What there was when users and Kubernetes had done their part."""
    writes: list[Write]
    """The operator's, thereupon."""
    outcome: dict[Any, Any]


async def played(scenario: str) -> list[Played]:
    cluster, found = FakeCluster(), []
    operator = Operator(cluster)
    for number, step in enumerate(SCENARIOS[scenario], start=1):
        step(cluster)
        before = cluster.copy()
        cluster.writes.clear()
        await settled(operator, cluster)
        name = f"{scenario}, step {number}"
        found.append(Played(name, before, list(cluster.writes), outcome(cluster)))
    return found


PLAYED = [step for scenario in SCENARIOS for step in asyncio.run(played(scenario))]


EACH_WRITE = [
    pytest.param(step, number, id=f"{step.name}: {write.verb} {write.kind}")
    for step in PLAYED
    for number, write in enumerate(step.writes, start=1)
]


def test_all_kinds_of_writes_are_disturbed() -> None:
    verbs = {write.verb for step in PLAYED for write in step.writes}

    assert verbs == {"apply", "delete", "patch_status"}


@pytest.mark.parametrize(("step", "number"), EACH_WRITE)
async def test_killed_after_any_write_it_ends_where_it_would_have_ended(
    step: Played, number: int
) -> None:
    cluster = step.before.copy()
    cluster.after_write = {number: KilledError()}

    with pytest.raises(KilledError):
        await settled(Operator(cluster), cluster)
    await settled(Operator(cluster), cluster)

    assert outcome(cluster) == step.outcome


@pytest.mark.parametrize(("step", "number"), EACH_WRITE)
async def test_a_write_whose_answer_is_lost_changes_nothing_else(step: Played, number: int) -> None:
    cluster = step.before.copy()
    cluster.after_write = {number: Unreachable(0, "Unreachable", "the connection was reset")}

    await settled(Operator(cluster), cluster)

    assert outcome(cluster) == step.outcome


@pytest.mark.parametrize("step", PLAYED, ids=lambda step: step.name)
async def test_an_operator_that_starts_where_all_is_done_writes_nothing(step: Played) -> None:
    cluster = step.before.copy()
    await settled(Operator(cluster), cluster)
    cluster.writes.clear()

    await settled(Operator(cluster), cluster)

    assert cluster.writes == []
