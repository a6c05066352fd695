import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scaling_samples import NOW, decision_for, policy, sample, samples_of, scaling_input
from slotkeeper.api.autoscaling import Schedule
from slotkeeper.scaling.decide import ScalingInput, ScalingReason, decide
from slotkeeper.scaling.history import Change
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample
from slotkeeper.scaling.schedule import ALWAYS

POLICY = policy(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})


def rows() -> Iterator[tuple[Policy, int, str, int, ScalingReason]]:
    """The rows of the tables in the docstring of `decide`, each with the policy of its table."""
    text = decide.__doc__ or ""
    for table in re.finditer(r"With `([^`]+)`:\n\n((?: *\|.*\n)+)", text):
        spec = policy(**yaml.safe_load(table[1]))
        for row in re.finditer(r"\| (\d+) +\| (.+?) +\| (\d+) +\| (\w+) +\|", table[2]):
            yield spec, int(row[1]), row[2], int(row[3]), ScalingReason(row[4])


ROWS = list(rows())


@pytest.mark.parametrize(
    ("spec", "current", "script", "desired", "reason"),
    [pytest.param(*row, id=f"{row[1]} replicas, {row[2]}: {row[4]}") for row in ROWS],
)
def test_the_tables_are_the_behavior(
    spec: Policy, current: int, script: str, desired: int, reason: ScalingReason
) -> None:
    decision = decision_for(spec, samples_of(script), current)

    assert (decision.replicas, decision.reason) == (desired, reason)


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
            "busy 8/8, queued 3, oldest 3.2 s: 2 -> 3",
        ),
        (
            POLICY,
            [Sample(NOW, 8, 3, 3.24, 11, 8, 5.0, 20.0)],
            2,
            "busy 8/8, queued 3, oldest 3.2 s, estimated wait 7.5 s: 2 -> 3",
        ),
        (
            POLICY,
            [Sample(NOW, 8, 1, 3.24, 9, 8, 5.0, 20.0)],
            2,
            "busy 8/8, queued 1, oldest 3.2 s, estimated wait 2.5 s: 2 (unchanged)",
        ),
        (
            POLICY,
            [Sample(NOW, 4, 0, 0.0, 4, 4, 1.0, 30.0)],
            1,
            "busy 4/4, queued 0, next request would wait 7.5 s: 1 -> 2",
        ),
        (
            POLICY,
            [Sample(NOW, 4, 1, 0.24, 5, 4, 1.0, 16.0)],
            1,
            (
                "busy 4/4, queued 1, oldest 0.2 s, estimated wait 4.0 s, "
                "next request would wait 8.0 s: 1 -> 2"
            ),
        ),
        (POLICY, [Sample(NOW, 1, 0, 0.0, 1, 8)], 2, "busy 1/8, queued 0: 2 (unchanged)"),
        (POLICY, [Sample(NOW, 0, 0, 0.0, 6, 4)], 1, "busy 0/4, queued 0, recent peak 6: 1 -> 2"),
        (
            POLICY,
            samples_of("4"),
            1,
            "busy 4/4, queued 0, mean demand 4.0 above 80 % of 4 slots: 1 -> 2",
        ),
        (
            POLICY,
            samples_of("5 for 90 s"),
            3,
            "busy 4/12, queued 1, oldest 0.0 s, below target for 60 s: 3 -> 2",
        ),
        (
            policy(maxWaitSeconds=2),
            [Sample(NOW, 3, 0, 0.0, 3, 4, 3.04, 10.04)],
            1,
            (
                "busy 3/4, queued 0, mean demand 3.0, mean service time 10.0 s, "
                "expected queue wait above 2 s: 1 -> 2"
            ),
        ),
        (
            policy(behavior=SLOW),
            samples_of("9"),
            1,
            "busy 4/4, queued 5, oldest 0.0 s, 3 desired, limited by behavior policies: 1 -> 2",
        ),
        (
            policy(minReplicas=0, idleSeconds=30),
            samples_of("0 for 30 s"),
            2,
            "busy 0/8, queued 0, idle for 30 s: 2 -> 0",
        ),
        (POLICY, [], 2, "no metrics from any balancer: 2 (unchanged)"),
        (POLICY, [], 9, "no metrics from any balancer: 9 -> 3"),
        (
            replace(
                POLICY,
                active=replace(ALWAYS, schedule=Schedule(cron="0 19 * * *", max_replicas=3)),
            ),
            [],
            9,
            (
                'no metrics from any balancer, 1 to 3 replicas allowed by schedule "0 19 * * *" '
                "(Etc/UTC): 9 -> 3"
            ),
        ),
    ],
)
def test_a_message_states_the_metrics_and_the_cause(
    spec: Policy, samples: list[Sample], current: int, message: str
) -> None:
    assert decision_for(spec, samples, current).message == message


def test_a_request_between_two_polls_counts() -> None:
    missed = Sample(
        at=NOW,
        busy_slots=0,
        queued=0,
        oldest_queued_seconds=0.0,
        peak_demand=5,
        total_slots=4,
        mean_demand=0.1,
    )

    assert decision_for(POLICY, [missed], 1).replicas == 2


def test_a_lagging_peak_does_not_hide_the_current_demand() -> None:
    lagging = Sample(
        at=NOW,
        busy_slots=4,
        queued=1,
        oldest_queued_seconds=0.0,
        peak_demand=0,
        total_slots=4,
        mean_demand=0.1,
    )

    assert decision_for(POLICY, [lagging], 1).replicas == 2


def test_the_history_covers_the_longest_window() -> None:
    up = {"scaleUp": {"stabilizationWindowSeconds": 900}}

    assert POLICY.history_seconds == 60
    assert policy(behavior=up).history_seconds == 900
    assert policy(minReplicas=0, idleSeconds=1800, behavior=up).history_seconds == 1800


def test_one_sample_removes_no_replica_even_without_a_window() -> None:
    hasty = policy(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})

    assert decision_for(hasty, samples_of("0 for 4 s"), 3).replicas == 3
    assert decision_for(hasty, samples_of("0 for 5 s"), 3).replicas == 1


def test_a_loading_replica_counts() -> None:
    # The new replica is not ready yet, so requests remain queued.
    for second in range(120):
        decision = decision_for(POLICY, samples_of(f"6 for {second + 1} s"), 2)

        assert decision.replicas == 2


def test_a_server_at_zero_wakes_in_spite_of_behavior() -> None:
    slow = {"stabilizationWindowSeconds": 3600, "policies": percent(10, 600)}
    spec = policy(minReplicas=0, behavior={"scaleUp": slow})

    decision = decision_for(spec, samples_of("0 for 90 s, then 9"), 0, Change(NOW - 9, -1))

    assert (decision.replicas, decision.reason) == (1, ScalingReason.DEMAND_ABOVE_CAPACITY)


def test_an_idle_server_does_not_shrink_with_scale_down_disabled() -> None:
    spec = policy(minReplicas=0, behavior={"scaleDown": {"selectPolicy": "Disabled"}})

    decision = decision_for(spec, samples_of("0 for 900 s"), 2)

    assert (decision.replicas, decision.reason) == (2, ScalingReason.RATE_LIMITED)


def percent(value: int, seconds: int = 60) -> list[dict[str, Any]]:
    return [{"type": "Percent", "value": value, "periodSeconds": seconds}]


gaps = st.one_of(st.just(1.0), st.floats(0.1, 2 * PEAK_WINDOW_SECONDS))
polls = st.lists(st.tuples(gaps, st.integers(0, 40)), max_size=120)
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
    minimum = draw(st.integers(0, 5))
    idle = {"idleSeconds": draw(st.sampled_from([1, 10, 60]))} if minimum == 0 else {}
    return policy(
        slots=draw(st.integers(1, 8)),
        minReplicas=minimum,
        maxReplicas=minimum + draw(st.integers(1, 10)),
        targetSlotUtilization=draw(st.integers(1, 100)),
        behavior={"scaleUp": draw(rules), "scaleDown": draw(rules)},
        **idle,
    )


counts = st.integers(0, 20)
changes = st.lists(
    st.builds(Change, st.floats(NOW - 120, NOW), st.integers(-5, 5)), max_size=5
).map(tuple)


def timeline(polls: list[tuple[float, int]]) -> list[Sample]:
    """Samples with these gaps after them; the gap of the last one ends NOW."""
    at = NOW
    samples = []
    for gap, demand in polls:
        at -= gap
        samples.append(sample(at, demand))
    return samples[::-1]


@given(policies(), polls, counts, changes)
def test_a_decision_is_within_the_bounds(
    spec: Policy, polls: list[tuple[float, int]], current: int, changes: tuple[Change, ...]
) -> None:
    decision = decision_for(spec, timeline(polls), current, *changes)

    assert spec.spec.min_replicas <= decision.replicas <= spec.spec.max_replicas


@given(policies(), polls, counts, changes)
def test_a_decision_is_a_fixed_point_once_it_is_applied(
    spec: Policy, polls: list[tuple[float, int]], current: int, changes: tuple[Change, ...]
) -> None:
    samples = timeline(polls)
    once = decision_for(spec, samples, current, *changes)
    made = Change(NOW, once.replicas - current)

    twice = decision_for(spec, samples, once.replicas, *changes, made)

    assert twice.replicas == once.replicas


@given(policies(), polls, counts, changes, st.data())
def test_more_demand_never_means_fewer_replicas(
    spec: Policy,
    polls: list[tuple[float, int]],
    current: int,
    changes: tuple[Change, ...],
    data: st.DataObject,
) -> None:
    samples = timeline(polls)
    more = [replace(each, queued=each.queued + data.draw(st.integers(0, 9))) for each in samples]

    fewer = decision_for(spec, samples, current, *changes).replicas

    assert decision_for(spec, more, current, *changes).replicas >= fewer


@given(policies(), polls, counts)
def test_no_replica_is_removed_before_the_window_is_full(
    spec: Policy, polls: list[tuple[float, int]], current: int
) -> None:
    shortest = min(spec.scale_down_window, spec.idle_seconds)
    samples = [each for each in timeline(polls) if each.at > NOW - shortest]

    assert decision_for(spec, samples, current).replicas >= spec.clamp(current)


@given(policies(), polls, counts, st.floats(PEAK_WINDOW_SECONDS, 50, exclude_min=True))
def test_no_replica_is_removed_without_metrics(
    spec: Policy, polls: list[tuple[float, int]], current: int, missing: float
) -> None:
    observed = scaling_input(spec, timeline(polls))

    decision = decide(spec, observed, current=current, now=NOW + missing)

    assert decision.replicas == spec.clamp(current)


@given(policies(), st.integers(1, 40), st.integers(0, 90))
def test_demand_at_zero_wakes_at_once(spec: Policy, demand: int, before: int) -> None:
    woken = decision_for(spec, samples_of(f"0 for {before} s, then {demand}"), 0)

    assert woken.replicas >= 1


@given(st.integers(0, 50), st.integers(2, 3))
def test_no_replica_is_removed_after_a_gap_in_the_samples(start: int, current: int) -> None:
    # Six samples are missing: the ones before and after are 7 s apart.
    with_gap = [each for each in samples_of("0 for 90 s") if not start < NOW - each.at <= start + 6]

    decision = decision_for(POLICY, with_gap, current)

    assert decision.replicas == current


def test_without_samples_metrics_are_unavailable() -> None:
    assert (
        decide(POLICY, ScalingInput(), current=2, now=NOW).reason
        is ScalingReason.METRICS_UNAVAILABLE
    )


@pytest.mark.parametrize(("age", "has_metrics"), [(0.0, True), (0.1, False)])
def test_a_sample_is_used_as_long_as_its_peak_window(age: float, has_metrics: bool) -> None:
    observed = scaling_input(POLICY, samples_of("3 for 90 s"))

    decision = decide(POLICY, observed, current=1, now=NOW + PEAK_WINDOW_SECONDS + age)

    assert decision.has_metrics == has_metrics
