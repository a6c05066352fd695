"""Rate limits on the number of replicas: the scaling policies of autoscaling/v2."""

from collections.abc import Sequence

from slotkeeper.api.autoscaling import ScaleDown, ScaleUp, ScalingPolicy
from slotkeeper.scaling.history import Change, net_change_since


def scale_up_limit(
    rules: ScaleUp, changes: Sequence[Change], *, current: int, now: float
) -> int | None:
    """Return the maximum number of replicas now, never below `current`; None: no limit.

    Each policy counts from the replicas at the start of its period: `current` minus those added
    since, plus those removed. Percentages are rounded up, so that a small server can grow at all.
    """
    if rules.select_policy == "Disabled":
        return current
    if rules.policies is None:
        return None
    limits = []
    for policy in rules.policies:
        start = _at_start(policy, changes, current, now)
        limit = start + policy.value
        if policy.type == "Percent":
            # Rounded up in integers: with floats, ten percent more than 100 would be 111.
            limit = -(-start * (100 + policy.value) // 100)
        limits.append(limit)
    return max(current, max(limits) if rules.select_policy == "Max" else min(limits))


def scale_down_limit(
    rules: ScaleDown, changes: Sequence[Change], *, current: int, now: float
) -> int:
    """Return the minimum number of replicas now, never above `current`.

    Percentages of the remaining replicas are rounded down, so that a small server can shrink.
    """
    if rules.select_policy == "Disabled":
        return current
    if rules.policies is None:
        return 0
    limits = []
    for policy in rules.policies:
        start = _at_start(policy, changes, current, now)
        limit = start - policy.value
        if policy.type == "Percent":
            limit = start * (100 - policy.value) // 100
        limits.append(max(limit, 0))
    # Max selects the policy that allows the largest change, which leaves the fewest replicas.
    return min(current, min(limits) if rules.select_policy == "Max" else max(limits))


def _at_start(policy: ScalingPolicy, changes: Sequence[Change], current: int, now: float) -> int:
    return current - net_change_since(changes, now - policy.period_seconds)
