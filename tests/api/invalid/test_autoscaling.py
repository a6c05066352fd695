"""Values of spec.autoscaling that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected

PODS = {"type": "Pods", "value": 1, "periodSeconds": 60}

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"minReplicas": 3}, "", "maxReplicas must be at least minReplicas"),
    ({"minReplicas": -1}, ".minReplicas", "greater than or equal to 0"),
    ({"minReplicas": "0"}, ".minReplicas", "must be of type integer"),
    ({"maxReplicas": 0}, ".maxReplicas", "greater than or equal to 1"),
    ({"maxReplicas": 1001}, ".maxReplicas", "less than or equal to 1000"),
    ({"targetSlotUtilization": 0}, ".targetSlotUtilization", "greater than or equal to 1"),
    ({"targetSlotUtilization": 101}, ".targetSlotUtilization", "less than or equal to 100"),
    ({"targetSlotUtilization": 0.8}, ".targetSlotUtilization", "must be of type integer"),
    ({"targetSlotUtilization": "80%"}, ".targetSlotUtilization", "must be of type integer"),
    ({"maxWaitSeconds": 0}, ".maxWaitSeconds", "greater than or equal to 1"),
    ({"maxWaitSeconds": 3601}, ".maxWaitSeconds", "less than or equal to 3600"),
    ({"maxWaitSeconds": "10s"}, ".maxWaitSeconds", "must be of type integer"),
    ({"idleSeconds": 300}, "", "idleSeconds must not be set unless minReplicas is 0"),
    ({"minReplicas": 0, "idleSeconds": 0}, ".idleSeconds", "greater than or equal to 1"),
    ({"minReplicas": 0, "idleSeconds": 86401}, ".idleSeconds", "less than or equal to 86400"),
    (
        {"minReplicas": 0, "behavior": {"scaleUp": {"selectPolicy": "Disabled"}}},
        "",
        "minReplicas must not be 0 if behavior.scaleUp.selectPolicy is Disabled",
    ),
    ({"behavior": "fast"}, ".behavior", "must be of type object"),
    (
        {"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1}}},
        ".behavior.scaleUp.stabilizationWindowSeconds",
        "greater than or equal to 0",
    ),
    (
        {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
        ".behavior.scaleDown.stabilizationWindowSeconds",
        "less than or equal to 3600",
    ),
    (
        {"behavior": {"scaleDown": {"selectPolicy": "None"}}},
        ".behavior.scaleDown.selectPolicy",
        'Unsupported value: "None"',
    ),
    (
        {"behavior": {"scaleDown": {"policies": []}}},
        ".behavior.scaleDown.policies",
        "should have at least 1 items",
    ),
    (
        {"behavior": {"scaleUp": {"policies": [PODS] * 17}}},
        ".behavior.scaleUp.policies",
        "must have at most 16 items",
    ),
    (
        {"behavior": {"scaleUp": {"policies": [PODS | {"type": "Replicas"}]}}},
        ".behavior.scaleUp.policies[0].type",
        'Unsupported value: "Replicas"',
    ),
    (
        {"behavior": {"scaleUp": {"policies": [PODS | {"value": 0}]}}},
        ".behavior.scaleUp.policies[0].value",
        "greater than or equal to 1",
    ),
    (
        {"behavior": {"scaleDown": {"policies": [PODS | {"periodSeconds": 0}]}}},
        ".behavior.scaleDown.policies[0].periodSeconds",
        "greater than or equal to 1",
    ),
    (
        {"behavior": {"scaleDown": {"policies": [PODS | {"periodSeconds": 1801}]}}},
        ".behavior.scaleDown.policies[0].periodSeconds",
        "less than or equal to 1800",
    ),
    (
        {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1}]}}},
        ".behavior.scaleDown.policies[0].periodSeconds",
        "Required value",
    ),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_autoscaling_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(
        api, {"autoscaling": {"maxReplicas": 2, **spec}}, f"spec.autoscaling{field}", message
    )


AT_EIGHT = "0 8 * * *"

INVALID_CRON = (
    *("", "soon", "@daily", "0 8 * *", "0 8 * * * *", "60 8 * * *", "0 24 * * *", "0 8 0 * *"),
    *("0 8 * 13 *", "0 8 * * 8", "0 8 * * FRE", "*/0 8 * * *", "0  8 * *"),
)

SCHEDULES: list[tuple[dict[str, Any], str, str]] = [
    ({"cron": AT_EIGHT}, ".schedules[0]", "must set minReplicas, maxReplicas or both"),
    (
        {"cron": AT_EIGHT, "minReplicas": 3},
        "",
        "maxReplicas must be at least minReplicas during each of schedules",
    ),
    (
        {"cron": AT_EIGHT, "minReplicas": 1, "timeZone": "Europe/Brlin"},
        ".schedules[0].timeZone",
        "unknown time zone Europe/Brlin",
    ),
    (
        {"cron": AT_EIGHT, "minReplicas": 1, "timeZone": "Local"},
        ".schedules[0].timeZone",
        "must be a name in the IANA time zone database",
    ),
    *(
        (
            {"cron": cron, "minReplicas": 1},
            ".schedules[0].cron",
            "must be minute, hour, day of month, month and day of week",
        )
        for cron in INVALID_CRON
    ),
    *(
        ({"cron": cron, "minReplicas": 1}, ".schedules[0].cron", "must have ascending ranges")
        for cron in ("30-10 8 * * *", "0 8 5,9-07/2 * *", "0 8 * nov-FEB *", "0 8 * * FRI-MON")
    ),
    *(
        ({"cron": cron, "minReplicas": 1}, ".schedules[0].cron", "must match a date that exists")
        for cron in ("0 8 30 2 *", "0 8 31 4,Jun *", "0 8 30-31,31/2 feb */2")
    ),
]


@pytest.mark.parametrize(("schedule", "field", "message"), SCHEDULES)
def test_an_invalid_schedule_is_rejected(
    api: ApiServer, schedule: dict[str, Any], field: str, message: str
) -> None:
    spec = {"autoscaling": {"maxReplicas": 2, "schedules": [schedule]}}

    assert_rejected(api, spec, f"spec.autoscaling{field}", message)
