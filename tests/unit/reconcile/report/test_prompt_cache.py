"""The condition PromptCacheActive and status.promptCache, as the leader reports the files."""

from typing import Any

import pytest

from balancer_reports import poll
from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    condition,
    demand_report,
    deploy,
    event_messages,
    server_status,
    update_spec,
)
from slotkeeper.kube.kinds import LLAMA_SERVERS

CACHE = {"emptyDir": True}


def report(reason: str = "Active", **fields: Any) -> Any:
    """The leader's report with files of prompts."""
    prompts = {"bytes": 100, "files": 2, "restoredTokensLastHour": 30}
    return demand_report() | {
        "promptCache": {"reason": reason, "message": f"it is {reason}", **prompts, **fields}
    }


def shown(cluster: FakeCluster) -> tuple[str, str, str]:
    found = condition(cluster, "PromptCacheActive")
    return found["status"], found["reason"], found["message"]


async def test_a_server_without_the_cache_has_no_such_condition(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await poll(operator, report())

    status = server_status(cluster)
    assert "PromptCacheActive" not in {each["type"] for each in status["conditions"]}
    assert "promptCache" not in status


async def test_the_files_are_shown_as_they_are_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=CACHE)
    assert shown(cluster) == ("Unknown", "Starting", "waiting for the balancer's first report")
    assert "promptCache" not in server_status(cluster)

    await poll(operator, report())

    assert shown(cluster) == ("True", "Active", "it is Active")
    numbers = {"bytes": 100, "files": 2, "restoredTokensLastHour": 30}
    assert server_status(cluster)["promptCache"] == numbers


@pytest.mark.parametrize(
    ("reason", "status", "degraded"),
    [
        ("NoReplica", "Unknown", False),
        ("RestoreSlower", "False", False),
        ("NotHonored", "False", True),
        ("FolderFull", "False", True),
    ],
)
async def test_a_cache_that_is_of_no_use_says_why_and_the_server_stays_ready(
    cluster: FakeCluster, operator: Operator, reason: str, status: str, degraded: bool
) -> None:
    await deploy(cluster, operator, promptCache=CACHE)
    await poll(operator, report(reason))

    message = f"it is {reason}"
    assert shown(cluster) == (status, reason, message)
    assert condition(cluster, "Ready")["status"] == "True"
    assert condition(cluster, "Degraded")["status"] == str(degraded)
    assert event_messages(cluster, reason) == ([message] if degraded else [])


@pytest.mark.parametrize("before", [None, "Active"])
async def test_files_that_are_briefly_unreachable_are_no_problem(
    cluster: FakeCluster, operator: Operator, before: str | None
) -> None:
    await deploy(cluster, operator, promptCache=CACHE, autoscaling={"maxReplicas": 2})
    if before:
        await poll(operator, report(before))
    known = shown(cluster)

    await poll(operator, report("Unreachable"))
    await operator.run_for(29)
    assert shown(cluster) == known
    assert event_messages(cluster, "Unreachable") == []

    await operator.run_for(1)
    assert shown(cluster) == ("False", "Unreachable", "it is Unreachable")
    assert condition(cluster, "Degraded")["reason"] == "Unreachable"

    await poll(operator, report("Active"))
    await poll(operator, report("Unreachable"))
    assert shown(cluster)[1] == "Active"


async def test_new_numbers_are_written_though_nothing_else_changed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=CACHE)
    await poll(operator, report())
    cluster.writes.clear()

    await poll(operator, report())
    assert cluster.writes == []
    await poll(operator, report(files=3))
    assert server_status(cluster)["promptCache"]["files"] == 3


async def test_without_a_report_the_last_one_is_kept(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=CACHE)
    await poll(operator, report("FolderFull"))
    before = server_status(cluster)["promptCache"]

    # A balancer of an older template leads, which has no prompt cache.
    await poll(operator, demand_report(busy=1))

    assert shown(cluster) == ("False", "FolderFull", "it is FolderFull")
    assert condition(cluster, "Degraded")["reason"] == "FolderFull"
    assert server_status(cluster)["promptCache"] == before


async def test_the_condition_goes_with_the_cache(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, promptCache=CACHE)
    await poll(operator, report())

    cluster.edit(LLAMA_SERVERS, "default", "chat", lambda raw: raw["spec"].pop("promptCache"))
    await operator.reconcile()

    status = server_status(cluster)
    assert "PromptCacheActive" not in {each["type"] for each in status["conditions"]}
    assert "promptCache" not in status


async def test_a_resumed_server_waits_for_a_report(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=CACHE, suspend=True)
    assert shown(cluster)[:2] == ("False", "Suspended")

    update_spec(cluster, suspend=False)
    await operator.reconcile()

    assert shown(cluster)[:2] == ("Unknown", "Starting")
