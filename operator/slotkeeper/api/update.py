"""Rolling updates of replicas: `spec.update`."""

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
        "must be a number of replicas from 0 to 9999, or a percentage such as 25%",
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

_ZERO = {"0", "0%"}


class Update(ApiModel):
    """Replacement of replicas when their spec changes."""

    rules: ClassVar = (
        Rule(
            "!has(self.strategy) || self.strategy != 'Recreate' || "
            "(!has(self.maxSurge) && !has(self.maxUnavailable))",
            "maxSurge and maxUnavailable must not be set if strategy is Recreate, which terminates "
            "all replicas first",
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
                str(update.max_surge) not in _ZERO or str(update.max_unavailable) not in _ZERO
            ),
        ),
    )

    strategy: Strategy = "RollingUpdate"
    """Strategy of the rollout. RollingUpdate: a few replicas at a time, within maxSurge and
    maxUnavailable. Recreate: all replicas are terminated first, and requests are queued until the
    first new replica is ready. Default: RollingUpdate. Example: Recreate"""

    max_surge: IntOrPercent | None = None
    """Maximum number or percentage of replicas above the desired number during a rollout, 0 to 9999
    or 0% to 100%. Each needs its own GPUs: if none are free, the rollout does not progress.
    Default: 1 if maxUnavailable is 0. If neither is set: 0 with GPUs, 1 without. Example: 1"""

    max_unavailable: IntOrPercent | None = None
    """Maximum number or percentage of replicas that are unavailable during a rollout, 0 to 9999 or
    0% to 100%. Default: 1 if maxSurge is 0, otherwise 0. If neither is set: 1 with GPUs, 0
    without. Example: 25%"""

    drain_timeout_seconds: Annotated[
        int, Field(ge=1, le=86_400, json_schema_extra={"format": "int32"})
    ] = 600
    """Maximum time in seconds that a terminating replica or balancer takes to complete its
    requests, 1 to 86400. The remaining ones are aborted. Set it to the duration of the longest
    response. Default: 600. Example: 1800"""

    @property
    def surge_and_unavailable(self) -> tuple[int | str, int | str] | None:
        """maxSurge and maxUnavailable, or None if neither is set.

        If only one is set, the other is 1 if the first is 0, and 0 otherwise.
        """
        surge = self.max_surge
        unavailable = self.max_unavailable
        if surge is None and unavailable is None:
            return None
        if surge is None:
            surge = int(str(unavailable) in _ZERO)
        if unavailable is None:
            unavailable = int(str(surge) in _ZERO)
        return surge, unavailable
