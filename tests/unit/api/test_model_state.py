from typing import Any

import pytest

from slotkeeper.api.model_state import state_of

AUTOSCALED = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}


def status(replicas: int = 0, **conditions: tuple[str, str]) -> dict[str, Any]:
    """A status with these conditions, each with its status and reason."""
    return {
        "readyReplicas": replicas,
        "conditions": [
            {"type": kind, "status": value, "reason": reason, "message": "because"}
            for kind, (value, reason) in conditions.items()
        ],
    }


@pytest.mark.parametrize(
    ("spec", "found", "state", "message"),
    [
        pytest.param({}, {}, "Waking", "", id="new"),
        pytest.param({}, status(Ready=("False", "Starting")), "Waking", "because", id="starting"),
        pytest.param({}, status(1, Ready=("True", "Serving")), "Ready", "", id="ready"),
        pytest.param(
            {},
            status(1, Ready=("False", "RollingOut"), Degraded=("True", "CrashLoopBackOff")),
            "Ready",
            "",
            id="old replicas during a failed rollout",
        ),
        pytest.param(
            {},
            status(Ready=("False", "ModelNotFound"), Degraded=("True", "ModelNotFound")),
            "Failed",
            "ModelNotFound: because",
            id="failed",
        ),
        pytest.param(
            {},
            status(Ready=("False", "Starting"), Degraded=("True", "FieldConflict")),
            "Waking",
            "because",
            id="a problem that keeps no replica from starting",
        ),
        pytest.param(
            {},
            status(Ready=("False", "Starting"), Degraded=("True", "KnownVulnerableBuild")),
            "Waking",
            "because",
            id="a known vulnerability",
        ),
        pytest.param(
            AUTOSCALED, status(Ready=("True", "ScaledToZero")), "AtZero", "", id="at zero"
        ),
        pytest.param(
            AUTOSCALED,
            status(Ready=("True", "ScaledToZero"), Degraded=("True", "Unschedulable")),
            "AtZero",
            "",
            id="at zero, and a standby balancer is missing",
        ),
        pytest.param(
            AUTOSCALED, status(Ready=("False", "Starting")), "Waking", "because", id="waking"
        ),
        pytest.param(
            {"replicas": 0},
            status(Ready=("False", "ScaledToZero")),
            "Failed",
            "spec.replicas is 0: requests do not start a replica",
            id="no replicas",
        ),
        pytest.param(
            {**AUTOSCALED, "replicas": 0},
            status(1, Ready=("True", "Serving")),
            "Ready",
            "",
            id="replicas are ignored with autoscaling",
        ),
        pytest.param(
            {"suspend": True},
            status(1, Ready=("False", "Suspended")),
            "Failed",
            "spec.suspend is true: requests do not start a replica",
            id="suspended",
        ),
        pytest.param(
            {},
            {"readyReplicas": "many", "conditions": [1, {"type": "Ready"}]},
            "Waking",
            "",
            id="a status of another schema",
        ),
    ],
)
def test_the_state_follows_from_spec_and_status(
    spec: dict[str, Any], found: dict[str, Any], state: str, message: str
) -> None:
    assert state_of(spec, found) == (state, message)
