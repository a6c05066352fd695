import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scaling_samples import NOW, decided, known, played, policy, sample
from slotkeeper.scaling.decide import ScalingInput, ScalingReason, decide
from slotkeeper.scaling.history import Change
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample

POLICY = policy(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})


def rows() -> Iterator[tuple[Policy, int, str, int, ScalingReason]]:
    """The tables in the docstring of `decide`, each under the autoscaling that it is for."""
    text = decide.__doc__ or ""
    for table in re.finditer(r"With `([^`]+)`:\n\n((?: *\|.*\n)+)", text):
        spec = policy(**yaml.safe_load(table[1]))
        for row in re.finditer(r"\| (\d+) +\| (.+?) +\| (\d+) +\| (\w+) +\|", table[2]):
            yield spec, int(row[1]), row[2], int(row[3]), ScalingReason(row[4])


ROWS = list(rows())


@pytest.mark.parametrize(
    ("spec", "current", "script", "wanted", "reason"),
    [pytest.param(*row, id=f"{row[1]} replicas, {row[2]}: {row[4]}") for row in ROWS],
)
def test_the_tables_are_what_it_does(
    spec: Policy, current: int, script: str, wanted: int, reason: ScalingReason
) -> None:
    decision = decided(spec, played(script), current)

    assert (decision.replicas, decision.reason) == (wanted, reason)


def test_the_tables_show_every_reason() -> None:
    assert len(ROWS) >= 60
    assert {row[-1] for row in ROWS} == set(ScalingReason)


SLOW = {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}


@pytest.mark.parametrize(
    ("spec", "samples", "current", "message"),
    [
        (
            POLICY,
            [Sample(NOW, 8, 3, 3.24, 11, 8, 5.0)],
            2,
            "busy 8/8, waiting 3, oldest 3.2 s: 2 -> 3",
        ),
        (
            POLICY,
            [Sample(NOW, 8, 3, 3.24, 11, 8, 5.0, 20.0)],
            2,
            "busy 8/8, waiting 3, oldest 3.2 s, last for 7.5 s more: 2 -> 3",
        ),
        (
            POLICY,
            [Sample(NOW, 8, 1, 3.24, 9, 8, 5.0, 20.0)],
            2,
            "busy 8/8, waiting 1, oldest 3.2 s, last for 2.5 s more: 2 stays",
        ),
        (
            POLICY,
            [Sample(NOW, 4, 0, 0.0, 4, 4, 1.0, 30.0)],
            1,
            "busy 4/4, waiting 0, the next one would wait for 7.5 s: 1 -> 2",
        ),
        (
            POLICY,
            [Sample(NOW, 4, 1, 0.24, 5, 4, 1.0, 16.0)],
            1,
            (
                "busy 4/4, waiting 1, oldest 0.2 s, last for 4.0 s more, the next one would wait "
                "for 8.0 s: 1 -> 2"
            ),
        ),
        (POLICY, [Sample(NOW, 1, 0, 0.0, 1, 8)], 2, "busy 1/8, waiting 0: 2 stays"),
        (POLICY, [Sample(NOW, 0, 0, 0.0, 6, 4)], 1, "busy 0/4, waiting 0, lately 6: 1 -> 2"),
        (
            POLICY,
            played("4"),
            1,
            "busy 4/4, waiting 0, 4.0 on average: above 80 % of 4 slots: 1 -> 2",
        ),
        (
            POLICY,
            played("5 for 90 s"),
            3,
            "busy 4/12, waiting 1, oldest 0.0 s, fewer were enough for 60 s: 3 -> 2",
        ),
        (
            policy(maxWaitSeconds=2),
            [Sample(NOW, 3, 0, 0.0, 3, 4, 3.04, 10.04)],
            1,
            (
                "busy 3/4, waiting 0, 3.0 on average for 10.0 s: they would wait for more than 2 s"
                ": 1 -> 2"
            ),
        ),
        (
            policy(behavior=SLOW),
            played("9"),
            1,
            (
                "busy 4/4, waiting 5, oldest 0.0 s, 3 wanted, which behavior does not allow yet: "
                "1 -> 2"
            ),
        ),
        (
            policy(minReplicas=0, idleSeconds=30),
            played("0 for 30 s"),
            2,
            "busy 0/8, waiting 0, idle for 30 s: 2 -> 0",
        ),
        (POLICY, [], 2, "no numbers from the balancer: 2 stays"),
        (POLICY, [], 9, "no numbers from the balancer: 9 -> 3"),
    ],
)
def test_a_decision_says_why_in_slots(
    spec: Policy, samples: list[Sample], current: int, message: str
) -> None:
    assert decided(spec, samples, current).message == message


def test_a_request_between_two_looks_counts() -> None:
    missed = Sample(
        at=NOW,
        busy_slots=0,
        queued=0,
        oldest_queued_seconds=0.0,
        peak_demand=5,
        total_slots=4,
        mean_demand=0.1,
    )

    assert decided(POLICY, [missed], 1).replicas == 2


def test_a_peak_that_lags_behind_hides_nothing() -> None:
    lagging = Sample(
        at=NOW,
        busy_slots=4,
        queued=1,
        oldest_queued_seconds=0.0,
        peak_demand=0,
        total_slots=4,
        mean_demand=0.1,
    )

    assert decided(POLICY, [lagging], 1).replicas == 2


def test_a_decision_looks_as_far_back_as_its_longest_window() -> None:
    up = {"scaleUp": {"stabilizationWindowSeconds": 900}}

    assert POLICY.history_seconds == 60
    assert policy(behavior=up).history_seconds == 900
    assert policy(minReplicas=0, idleSeconds=1800, behavior=up).history_seconds == 1800


def test_one_look_takes_nothing_away_even_without_a_window() -> None:
    hasty = policy(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})

    assert decided(hasty, played("0 for 4 s"), 3).replicas == 3
    assert decided(hasty, played("0 for 5 s"), 3).replicas == 1


def test_a_replica_that_loads_is_counted_as_coming() -> None:
    # All the while the new replica's slots are not there, and its requests wait.
    for second in range(120):
        decision = decided(POLICY, played(f"6 for {second + 1} s"), 2)

        assert decision.replicas == 2


def test_a_server_at_zero_wakes_whatever_behavior_says() -> None:
    slow = {"stabilizationWindowSeconds": 3600, "policies": percent(10, 600)}
    spec = policy(minReplicas=0, behavior={"scaleUp": slow})

    decision = decided(spec, played("0 for 90 s, then 9"), 0, Change(NOW - 9, -1))

    assert (decision.replicas, decision.reason) == (1, ScalingReason.DEMAND_ABOVE_CAPACITY)


def test_a_server_that_must_not_shrink_stays_when_idle() -> None:
    spec = policy(minReplicas=0, behavior={"scaleDown": {"selectPolicy": "Disabled"}})

    decision = decided(spec, played("0 for 900 s"), 2)

    assert (decision.replicas, decision.reason) == (2, ScalingReason.RATE_LIMITED)


def percent(value: int, seconds: int = 60) -> list[dict[str, Any]]:
    return [{"type": "Percent", "value": value, "periodSeconds": seconds}]


gaps = st.one_of(st.just(1.0), st.floats(0.1, 2 * PEAK_WINDOW_SECONDS))
looks = st.lists(st.tuples(gaps, st.integers(0, 40)), max_size=120)
windows = st.sampled_from([0, 5, 20, 60])
rules = st.fixed_dictionaries(
    {"stabilizationWindowSeconds": windows, "selectPolicy": st.sampled_from(["Max", "Min"])},
    optional={
        "policies": st.lists(
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(["Pods", "Percent"]),
                    "value": st.integers(1, 200),
                    "periodSeconds": st.integers(1, 90),
                }
            ),
            min_size=1,
            max_size=3,
        )
    },
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    least = draw(st.integers(0, 5))
    idle = {"idleSeconds": draw(st.sampled_from([1, 10, 60]))} if least == 0 else {}
    return policy(
        slots=draw(st.integers(1, 8)),
        minReplicas=least,
        maxReplicas=least + draw(st.integers(1, 10)),
        targetSlotUtilization=draw(st.integers(1, 100)),
        behavior={"scaleUp": draw(rules), "scaleDown": draw(rules)},
        **idle,
    )


counts = st.integers(0, 20)
changes = st.lists(
    st.builds(Change, st.floats(NOW - 120, NOW), st.integers(-5, 5)), max_size=5
).map(tuple)


def timeline(looks: list[tuple[float, int]]) -> list[Sample]:
    """Samples with these gaps after them; the last one's reaches to NOW."""
    at = NOW
    samples = []
    for gap, demand in looks:
        at -= gap
        samples.append(sample(at, demand))
    return samples[::-1]


@given(policies(), looks, counts, changes)
def test_a_decision_is_within_the_bounds(
    spec: Policy, looks: list[tuple[float, int]], current: int, changes: tuple[Change, ...]
) -> None:
    decision = decided(spec, timeline(looks), current, *changes)

    assert spec.spec.min_replicas <= decision.replicas <= spec.spec.max_replicas


@given(policies(), looks, counts, changes)
def test_a_decision_carried_out_is_a_fixed_point(
    spec: Policy, looks: list[tuple[float, int]], current: int, changes: tuple[Change, ...]
) -> None:
    samples = timeline(looks)
    once = decided(spec, samples, current, *changes)
    made = Change(NOW, once.replicas - current)

    twice = decided(spec, samples, once.replicas, *changes, made)

    assert twice.replicas == once.replicas


@given(policies(), looks, counts, changes, st.data())
def test_more_demand_never_means_fewer_replicas(
    spec: Policy,
    looks: list[tuple[float, int]],
    current: int,
    changes: tuple[Change, ...],
    data: st.DataObject,
) -> None:
    samples = timeline(looks)
    more = [replace(one, queued=one.queued + data.draw(st.integers(0, 9))) for one in samples]

    fewer = decided(spec, samples, current, *changes).replicas

    assert decided(spec, more, current, *changes).replicas >= fewer


@given(policies(), looks, counts)
def test_nothing_goes_before_a_window_is_full(
    spec: Policy, looks: list[tuple[float, int]], current: int
) -> None:
    shortest = min(spec.scale_down_window, spec.idle_seconds)
    samples = [one for one in timeline(looks) if one.at > NOW - shortest]

    assert decided(spec, samples, current).replicas >= spec.clamp(current)


@given(policies(), looks, counts, st.floats(PEAK_WINDOW_SECONDS, 50, exclude_min=True))
def test_nothing_goes_while_the_balancer_says_nothing(
    spec: Policy, looks: list[tuple[float, int]], current: int, silence: float
) -> None:
    said = known(spec, timeline(looks))

    decision = decide(spec, said, current=current, now=NOW + silence)

    assert decision.replicas == spec.clamp(current)


@given(policies(), st.integers(1, 40), st.integers(0, 90))
def test_demand_at_zero_wakes_at_once(spec: Policy, demand: int, before: int) -> None:
    woken = decided(spec, played(f"0 for {before} s, then {demand}"), 0)

    assert woken.replicas >= 1


@given(st.integers(0, 50), st.integers(2, 3))
def test_nothing_goes_after_a_time_that_nobody_watched(start: int, current: int) -> None:
    # Six samples are missing, so that those beside them are 7 s apart.
    unwatched = [one for one in played("0 for 90 s") if not start < NOW - one.at <= start + 6]

    decision = decided(POLICY, unwatched, current)

    assert decision.replicas == current


def test_nothing_is_known_of_a_server_at_first() -> None:
    assert (
        decide(POLICY, ScalingInput(), current=2, now=NOW).reason
        is ScalingReason.METRICS_UNAVAILABLE
    )
