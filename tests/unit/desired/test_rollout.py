"""Replacement of replicas when their spec changes."""

from typing import Any

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import balancer, replicas

RollingUpdate = tuple[Any, Any]


def deployment(**spec: Any) -> Any:
    return replicas.deployment(server(**spec), 3, IMAGES)["spec"]


@pytest.mark.parametrize(
    ("gpus", "update", "surge_and_unavailable"),
    [
        pytest.param(1, {}, (0, 1), id="there may be no spare GPU"),
        pytest.param(0, {}, (1, 0), id="a CPU server starts the successor first"),
        pytest.param(1, {"maxSurge": 1}, (1, 0), id="a spare GPU keeps all replicas"),
        pytest.param(0, {"maxSurge": 0}, (0, 1), id="without surge one is unavailable"),
        pytest.param(0, {"maxSurge": "0%"}, ("0%", 1), id="without surge, in percent"),
        pytest.param(1, {"maxUnavailable": 2}, (0, 2), id="two at a time"),
        pytest.param(1, {"maxUnavailable": 0}, (1, 0), id="none may be unavailable"),
        pytest.param(
            1, {"maxUnavailable": "0%"}, (1, "0%"), id="none may be unavailable, in percent"
        ),
        pytest.param(
            1, {"maxSurge": "25%", "maxUnavailable": "50%"}, ("25%", "50%"), id="both are set"
        ),
    ],
)
def test_a_rollout_follows_max_surge_and_max_unavailable(
    gpus: int, update: dict[str, Any], surge_and_unavailable: RollingUpdate
) -> None:
    rolling = deployment(gpu={"count": gpus}, update=update)["strategy"]["rollingUpdate"]

    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == surge_and_unavailable


def test_recreate_ends_all_replicas_first() -> None:
    assert deployment(update={"strategy": "Recreate"})["strategy"] == {"type": "Recreate"}


def test_the_drain_timeout_applies_to_replicas_and_balancers() -> None:
    chat = server(update={"drainTimeoutSeconds": 1800})

    replica = replicas.deployment(chat, 1, IMAGES)["spec"]
    balancers = balancer.deployment(chat, IMAGES)["spec"]["template"]["spec"]

    assert replica["template"]["spec"]["terminationGracePeriodSeconds"] == 1800
    command = balancers["containers"][0]["command"]
    assert command[command.index("--drain-timeout") + 1] == "1800"
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
def test_a_field_that_is_not_about_replicas_restarts_none(change: dict[str, Any]) -> None:
    assert deployment(**change)["template"] == deployment()["template"]
