"""The condition PromptsPrimed and status.prime, as the leader reports priming."""

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
)
from slotkeeper.kube.kinds import LLAMA_SERVERS

PRIME = {"learned": True}
NUMBERS = {"prompts": 0, "learned": 2, "tokensLastHour": 30, "replicas": 1}


def report(reason: str = "Active", **fields: Any) -> Any:
    """The leader's report with priming."""
    prime = {"reason": reason, "message": f"it is {reason}", **NUMBERS, **fields}
    return demand_report() | {"prime": prime}


def shown(cluster: FakeCluster) -> tuple[str, str, str]:
    found = condition(cluster, "PromptsPrimed")
    return found["status"], found["reason"], found["message"]


async def test_a_server_without_priming_has_no_such_condition(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await poll(operator, report())

    status = server_status(cluster)
    assert "PromptsPrimed" not in {each["type"] for each in status["conditions"]}
    assert "prime" not in status


async def test_priming_is_shown_as_it_is_reported(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, prime=PRIME)
    assert shown(cluster) == ("Unknown", "Starting", "waiting for the balancer's first report")
    assert "prime" not in server_status(cluster)

    await poll(operator, report())

    assert shown(cluster) == ("True", "Active", "it is Active")
    assert server_status(cluster)["prime"] == NUMBERS
    cluster.writes.clear()
    await poll(operator, report())
    assert cluster.writes == []
    await poll(operator, report(learned=3))
    assert server_status(cluster)["prime"]["learned"] == 3


@pytest.mark.parametrize("reason", ["PromptInvalid", "PrimingFailed"])
async def test_prompts_that_are_not_computed_are_a_problem_and_the_server_stays_ready(
    cluster: FakeCluster, operator: Operator, reason: str
) -> None:
    await deploy(cluster, operator, prime=PRIME)
    await poll(operator, report(reason))

    message = f"it is {reason}"
    assert shown(cluster) == ("False", reason, message)
    assert condition(cluster, "Ready")["status"] == "True"
    assert condition(cluster, "Degraded")["reason"] == reason
    assert event_messages(cluster, reason) == [message]

    await poll(operator, report(reason, message="another one"))
    assert shown(cluster)[2] == "another one"
    await poll(operator, report())
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_without_a_report_the_last_one_is_kept(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, prime=PRIME)
    await poll(operator, report("PromptInvalid"))

    # A balancer of an older template leads, which does not prime.
    await poll(operator, demand_report(busy=1))

    assert shown(cluster)[:2] == ("False", "PromptInvalid")
    assert server_status(cluster)["prime"] == NUMBERS


async def test_the_condition_goes_with_the_field(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, prime=PRIME)
    await poll(operator, report())

    cluster.edit(LLAMA_SERVERS, "default", "chat", lambda raw: raw["spec"].pop("prime"))
    await operator.reconcile()

    status = server_status(cluster)
    assert "PromptsPrimed" not in {each["type"] for each in status["conditions"]}
    assert "prime" not in status
