"""How replicas are replaced, as a user sets it in `spec.update`."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictInt, StrictStr, WithJsonSchema

from slotkeeper.api.validation import ApiModel, Rule

_PERCENT = "(?:100|[1-9]?[0-9])%"

IntOrPercent = Annotated[
    StrictInt | StrictStr,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 4,
        }
    ),
    Rule(
        "type(self) == int ? self >= 0 && self <= 9999 : "
        f"type(self) == string && self.matches(r'^(?:{_PERCENT})$')",
        "must be a number of replicas, 0 to 9999, or a share of them, such as 25%",
        lambda value: (
            re.fullmatch(_PERCENT, value, re.ASCII) is not None
            if isinstance(value, str)
            else 0 <= value <= 9999
        ),
    ),
]

Strategy = Annotated[
    Literal["RollingUpdate", "Recreate"], Field(json_schema_extra={"maxLength": 13})
]

_NONE = {"0", "0%"}


class Update(ApiModel):
    """How replicas of an older spec give way to those of a newer one."""

    rules: ClassVar = (
        Rule(
            "!has(self.strategy) || self.strategy != 'Recreate' || "
            "(!has(self.maxSurge) && !has(self.maxUnavailable))",
            "maxSurge and maxUnavailable are for the strategy RollingUpdate: Recreate ends all "
            "replicas before it starts the first new one",
            lambda update: (
                update.strategy != "Recreate"
                or (update.max_surge is None and update.max_unavailable is None)
            ),
        ),
        Rule(
            "!has(self.maxSurge) || !has(self.maxUnavailable) || "
            "!(string(self.maxSurge) in ['0', '0%']) || "
            "!(string(self.maxUnavailable) in ['0', '0%'])",
            "maxSurge and maxUnavailable must not both be 0: no replica could ever be replaced",
            lambda update: (
                str(update.max_surge) not in _NONE or str(update.max_unavailable) not in _NONE
            ),
        ),
    )

    strategy: Strategy = "RollingUpdate"
    """RollingUpdate replaces a few replicas at a time, as maxSurge and maxUnavailable say. Recreate
    ends all of them first, and requests wait until the first new one is loaded. Default:
    RollingUpdate. Example: Recreate"""

    max_surge: IntOrPercent | None = None
    """Replicas, or a share of them, that a rollout may add to those that are wanted, 0 to 9999 or
    0% to 100%. Each needs its GPUs: where none is free, the rollout waits for ever. Default: 1
    where maxUnavailable is 0; where neither is set, 0 with GPUs and 1 without. Example: 1"""

    max_unavailable: IntOrPercent | None = None
    """Replicas, or a share of them, that a rollout may take away before their successors serve, 0
    to 9999 or 0% to 100%. Default: 1 where maxSurge is 0, else 0. Example: 25%"""

    drain_timeout_seconds: Annotated[
        int, Field(ge=1, le=86_400, json_schema_extra={"format": "int32"})
    ] = 600
    """Seconds that a replica or a balancer which is to go may still work on the requests that it
    has, 1 to 86400; what is not done then is cut. As long as the longest answer takes. Default:
    600. Example: 1800"""

    @property
    def surge_and_unavailable(self) -> tuple[int | str, int | str] | None:
        """Both bounds where at least one of them is said: the other is then 0, or 1 beside a 0."""
        surge = self.max_surge
        unavailable = self.max_unavailable
        if surge is None and unavailable is None:
            return None
        if surge is None:
            surge = int(str(unavailable) in _NONE)
        if unavailable is None:
            unavailable = int(str(surge) in _NONE)
        return surge, unavailable
