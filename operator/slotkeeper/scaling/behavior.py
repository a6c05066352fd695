"""How far the number of replicas may change now: the policies of autoscaling/v2."""

from collections.abc import Sequence

from slotkeeper.api.autoscaling import ScaleDown, ScaleUp, ScalingPolicy
from slotkeeper.scaling.history import Change, net_change_since


def scale_up_limit(
    rules: ScaleUp, changes: Sequence[Change], *, current: int, now: float
) -> int | None:
    """The most replicas that there may be now, never below `current`; None: any number.

    Each policy counts from the replicas at its period's start: `current` less what came since,
    and what went. Percent are rounded up, so that a small server grows at all.
    """
    if rules.select_policy == "Disabled":
        return current
    if rules.policies is None:
        return None
    limits = []
    for policy in rules.policies:
        start = _at_start(policy, changes, current, now)
        grown = start + policy.value
        if policy.type == "Percent":
            # Upwards, in whole numbers: floats would make 111 of 100 and ten percent.
            grown = -(-start * (100 + policy.value) // 100)
        limits.append(grown)
    return max(current, max(limits) if rules.select_policy == "Max" else min(limits))


def scale_down_limit(
    rules: ScaleDown, changes: Sequence[Change], *, current: int, now: float
) -> int:
    """The fewest replicas that there may be now, never above `current`.

    Percent of what stays are rounded down, so that a small server shrinks at all.
    """
    if rules.select_policy == "Disabled":
        return current
    if rules.policies is None:
        return 0
    limits = []
    for policy in rules.policies:
        start = _at_start(policy, changes, current, now)
        left = start - policy.value
        if policy.type == "Percent":
            left = start * (100 - policy.value) // 100
        limits.append(max(left, 0))
    # The policy that lets most change is the one that leaves fewest.
    return min(current, min(limits) if rules.select_policy == "Max" else max(limits))


def _at_start(policy: ScalingPolicy, changes: Sequence[Change], current: int, now: float) -> int:
    return current - net_change_since(changes, now - policy.period_seconds)
