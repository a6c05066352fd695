"""How replicas of an older spec give way to those of a newer one."""

from typing import Any

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import balancer, replicas

RollingUpdate = tuple[Any, Any]


def deployment(**spec: Any) -> Any:
    return replicas.deployment(server(**spec), 3, IMAGES)["spec"]


@pytest.mark.parametrize(
    ("gpus", "said", "surge_and_unavailable"),
    [
        pytest.param(1, {}, (0, 1), id="a spare GPU may not exist"),
        pytest.param(0, {}, (1, 0), id="a CPU server has its successor first"),
        pytest.param(1, {"maxSurge": 1}, (1, 0), id="who has a spare GPU loses no replica"),
        pytest.param(0, {"maxSurge": 0}, (0, 1), id="no surge takes one away"),
        pytest.param(0, {"maxSurge": "0%"}, ("0%", 1), id="nor does none in percent"),
        pytest.param(1, {"maxUnavailable": 2}, (0, 2), id="two at a time"),
        pytest.param(1, {"maxUnavailable": 0}, (1, 0), id="none may be missing"),
        pytest.param(1, {"maxUnavailable": "0%"}, (1, "0%"), id="none in percent"),
        pytest.param(
            1, {"maxSurge": "25%", "maxUnavailable": "50%"}, ("25%", "50%"), id="both are said"
        ),
    ],
)
def test_a_rollout_adds_and_takes_away_as_it_is_told(
    gpus: int, said: dict[str, Any], surge_and_unavailable: RollingUpdate
) -> None:
    rolling = deployment(gpu={"count": gpus}, update=said)["strategy"]["rollingUpdate"]

    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == surge_and_unavailable


def test_recreate_ends_all_replicas_first() -> None:
    assert deployment(update={"strategy": "Recreate"})["strategy"] == {"type": "Recreate"}


def test_replicas_and_balancers_have_as_long_as_is_said_to_finish() -> None:
    patient = server(update={"drainTimeoutSeconds": 1800})

    replica = replicas.deployment(patient, 1, IMAGES)["spec"]
    balancers = balancer.deployment(patient, IMAGES)["spec"]["template"]["spec"]

    assert replica["template"]["spec"]["terminationGracePeriodSeconds"] == 1800
    command = balancers["containers"][0]["command"]
    assert command[command.index("--drain-seconds") + 1] == "1800"
    assert balancers["terminationGracePeriodSeconds"] == 1830


def test_a_slow_start_and_a_slow_end_are_no_failed_rollout() -> None:
    assert (
        deployment(update={"drainTimeoutSeconds": 7200})["progressDeadlineSeconds"] == 3600 + 7200
    )


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 5},
        {"autoscaling": {"maxReplicas": 9}},
        {"suspend": True},
        {"balancer": {"replicas": 3, "maxQueuedRequests": 7}},
        {"update": {"strategy": "Recreate"}},
        {"update": {"maxSurge": 2}},
    ],
    ids=str,
)
def test_what_says_nothing_of_a_replica_restarts_none(change: dict[str, Any]) -> None:
    assert deployment(**change)["template"] == deployment()["template"]
