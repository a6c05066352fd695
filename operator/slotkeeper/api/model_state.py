"""The state of a LlamaServer's model, by which gateways route and which their status shows.

    | the server                                                          | state   |
    |---------------------------------------------------------------------|---------|
    | `suspend`, or no replica is desired without `autoscaling`           | Failed  |
    | at least one ready replica                                          | Ready   |
    | Ready is True with reason ScaledToZero: the next request starts one | AtZero  |
    | Degraded by a problem that keeps replicas from starting             | Failed  |
    | otherwise, also before the operator has processed it                | Waking  |

No pydantic: the gateway reads it too. Pure.
"""

from collections.abc import Mapping
from typing import Any, Literal

from slotkeeper.api.problem_reasons import Reason

ModelState = Literal["Ready", "Waking", "AtZero", "Failed"]

_HARMLESS = {
    Reason.FIELD_CONFLICT,
    Reason.METRICS_UNAVAILABLE,
    Reason.KNOWN_VULNERABLE_BUILD,
}
"""Reasons of Degraded that keep no replica from starting."""


def state_of(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[ModelState, str]:
    """Return the state of a LlamaServer's model, and a message; "" if it needs none.

    Both may break any rule: the API server may have stored them under another schema.
    """
    if spec.get("suspend") is True:
        return "Failed", "spec.suspend is true: requests do not start a replica"
    if spec.get("replicas") == 0 and not spec.get("autoscaling"):
        return "Failed", "spec.replicas is 0: requests do not start a replica"
    replicas = status.get("readyReplicas")
    if isinstance(replicas, int) and replicas > 0:
        return "Ready", ""
    ready = _condition(status, "Ready")
    if ready.get("status") == "True" and ready.get("reason") == Reason.SCALED_TO_ZERO:
        return "AtZero", ""
    degraded = _condition(status, "Degraded")
    if degraded.get("status") == "True" and degraded.get("reason") not in _HARMLESS:
        return "Failed", f"{degraded.get('reason')}: {degraded.get('message')}"
    message = ready.get("message")
    return "Waking", message if isinstance(message, str) else ""


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = status.get("conditions")
    for each in conditions if isinstance(conditions, list) else ():
        if isinstance(each, dict) and each.get("type") == kind:
            return each
    return {}
