"""The policies of autoscaling/v2, compared to its documentation.

https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/, under
"Configurable scaling behavior".
"""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.autoscaling import ScaleDown, ScaleUp
from slotkeeper.scaling.behavior import scale_down_limit, scale_up_limit
from slotkeeper.scaling.history import Change

NOW = 1000.0


def pods(value: int, seconds: int = 60) -> dict[str, Any]:
    return {"type": "Pods", "value": value, "periodSeconds": seconds}


def percent(value: int, seconds: int = 60) -> dict[str, Any]:
    return {"type": "Percent", "value": value, "periodSeconds": seconds}


def down(current: int, *policies: dict[str, Any], select: str = "Max") -> list[int]:
    """The replicas, minute by minute, once none is needed."""
    rules = ScaleDown.model_validate({"policies": list(policies), "selectPolicy": select})
    path, changes = [current], list[Change]()
    for minute in range(50):
        now = NOW + 60 * minute
        limit = scale_down_limit(rules, changes, current=path[-1], now=now)
        if limit == path[-1]:
            break
        changes.append(Change(now, limit - path[-1]))
        path.append(limit)
    return path


def up(current: int, *changes: Change, select: str = "Max", **rules: Any) -> int | None:
    scale_up = ScaleUp.model_validate({"selectPolicy": select, **rules})
    return scale_up_limit(scale_up, changes, current=current, now=NOW)


def test_the_documented_example_of_eighty_replicas() -> None:
    # Ten percent as long as that is more than four, rounded so that 7.2 are 8; then four at a time.
    path = down(80, pods(4), percent(10))

    assert path[:5] == [80, 72, 64, 57, 51]
    steps = [before - after for before, after in itertools.pairwise(path)]
    assert steps[-10:-1] == [4] * 9
    assert path[-1] == 0


def test_min_selects_the_policy_that_changes_least() -> None:
    assert down(80, pods(5), percent(10), select="Min")[:3] == [80, 75, 70]
    assert down(30, pods(5), percent(10), select="Min")[:3] == [30, 27, 24]


def test_a_hundred_percent_removes_all_at_once() -> None:
    assert down(80, percent(100, 15)) == [80, 0]


def test_the_documented_defaults_for_scaling_up() -> None:
    # Four pods or a hundred percent in 15 s, whichever is more.
    quick = [percent(100, 15), pods(4, 15)]

    assert [up(current, policies=quick) for current in (1, 3, 4, 5, 10)] == [5, 7, 8, 10, 20]


@pytest.mark.parametrize(
    ("current", "policies", "changes", "limit"),
    [
        pytest.param(10, [pods(4)], [], 14, id="nothing has changed in the period"),
        pytest.param(10, [pods(4)], [(-30, 3)], 11, id="three of four were added in it"),
        pytest.param(10, [pods(4)], [(-30, 4)], 10, id="all four were added"),
        pytest.param(10, [pods(4)], [(-30, 9)], 10, id="more were added than allowed"),
        pytest.param(10, [pods(4)], [(-60, 4)], 14, id="they were added before the period"),
        pytest.param(10, [pods(4)], [(-30, -2)], 16, id="removed replicas may be added again"),
        pytest.param(
            12, [percent(50)], [(-30, 2)], 15, id="percentages count from the period's start"
        ),
        pytest.param(1, [percent(10)], [], 2, id="percentages are rounded up"),
        pytest.param(100, [percent(10)], [], 110, id="but not by a float's error"),
        pytest.param(10, [pods(1, 15), percent(50, 60)], [], 15, id="the maximum of several"),
        pytest.param(10, [pods(1, 15), pods(4, 60)], [(-20, 4)], 11, id="each its own period"),
    ],
)
def test_a_policy_limits_the_replicas_added_in_its_period(
    current: int, policies: list[dict[str, Any]], changes: list[tuple[float, int]], limit: int
) -> None:
    made = [Change(NOW + ago, replicas) for ago, replicas in changes]

    assert up(current, *made, policies=policies) == limit


def test_disabled_allows_no_change_and_no_policy_is_no_limit() -> None:
    disabled = ScaleDown.model_validate({"selectPolicy": "Disabled", "policies": [percent(100)]})

    assert scale_down_limit(disabled, [], current=9, now=NOW) == 9
    assert scale_down_limit(ScaleDown(), [], current=9, now=NOW) == 0
    assert up(9, select="Disabled", policies=[pods(4)]) == 9
    assert up(9) is None


policies = st.lists(
    st.builds(
        lambda make, value, seconds: make(value, seconds),
        st.sampled_from([pods, percent]),
        st.integers(1, 300),
        st.integers(1, 1800),
    ),
    min_size=1,
    max_size=4,
)
changes = st.lists(st.builds(Change, st.floats(-900, NOW), st.integers(-9, 9)), max_size=6)


@given(policies, changes, st.integers(0, 1000), st.sampled_from(["Max", "Min"]))
def test_a_limit_never_forces_a_change(
    policies: list[dict[str, Any]], changes: list[Change], current: int, select: str
) -> None:
    rules = {"policies": policies, "selectPolicy": select}

    minimum = scale_down_limit(ScaleDown.model_validate(rules), changes, current=current, now=NOW)
    maximum = scale_up_limit(ScaleUp.model_validate(rules), changes, current=current, now=NOW)

    assert maximum is not None
    assert 0 <= minimum <= current <= maximum
