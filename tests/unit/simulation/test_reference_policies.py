"""The reference policies, step by step, compared to their documentation."""

import pytest

from slotkeeper.scaling.sample import Sample
from slotkeeper.simulation.reference_policies import (
    REFERENCE_POLICIES,
    HorizontalPodAutoscaler,
    MovingAverage,
    PolicyBounds,
)
from slotkeeper.simulation.simulate import Observation

BOUNDS = PolicyBounds(slots=4, min_replicas=1, max_replicas=20)


def observe(
    *values: int, at: float = 0.0, current: int | None = None, queued: int = 0
) -> Observation:
    """Busy slots of each ready replica, of `current` replicas."""
    busy = sum(values)
    sample = Sample(at, busy, queued, 0.0, busy + queued)
    return Observation(sample, len(values) if current is None else current, values)


def hpa(target: float = 2.0) -> HorizontalPodAutoscaler:
    return HorizontalPodAutoscaler(
        lambda observation: [float(busy) for busy in observation.busy_slots], target, BOUNDS
    )


@pytest.mark.parametrize(
    ("observation", "desired"),
    [
        pytest.param(observe(4, 4), 4, id="twice the target"),
        pytest.param(observe(3, 2), 3, id="rounded up"),
        pytest.param(observe(2, 2, 2, 2, 2, 3), 6, id="within a tenth"),
        pytest.param(observe(4, current=2), 2, id="a loading replica counts with 0: no change"),
        pytest.param(observe(4, 4, 4, current=4), 6, id="still above the target"),
        pytest.param(observe(current=3), 3, id="no metrics"),
        pytest.param(observe(*[4] * 3), 6, id="at most twice as many, or"),
        pytest.param(observe(40), 5, id="four more"),
        pytest.param(observe(*[4] * 12), 20, id="not above the maximum"),
    ],
)
def test_an_hpa_scales_up_at_once(observation: Observation, desired: int) -> None:
    assert hpa().desired_replicas(observation) == desired


def test_an_hpa_scales_down_to_the_maximum_of_five_minutes() -> None:
    scaler = hpa()
    steps = [
        scaler.desired_replicas(observe(2, 2, 2, 2, at=0.0)),
        scaler.desired_replicas(observe(1, 1, 1, 1, at=15.0)),
    ]
    steps += [
        scaler.desired_replicas(observe(0, 0, 0, 0, at=at)) for at in (285.0, 300.0, 315.0, 330.0)
    ]

    assert steps == [4, 4, 4, 2, 1, 1]


def test_a_loading_replica_counts_as_at_its_target_when_fewer_are_required() -> None:
    scaler = hpa()
    scaler.desired_replicas(observe(0, 0, current=4))

    # (0 + 0 + 2 * 2) / 4 is half the target.
    assert scaler.desired_replicas(observe(0, 0, current=4, at=300.0)) == 2


def test_a_moving_average_covers_ten_minutes() -> None:
    scaler = MovingAverage(4.0, BOUNDS)

    desired = [
        scaler.desired_replicas(observe(8, at=10.0 * number, current=2)) for number in range(60)
    ]
    assert set(desired) == {2}
    later = [
        scaler.desired_replicas(observe(0, at=600 + 10.0 * number, current=2))
        for number in range(60)
    ]
    # A mean of 4 after half of it; three samples in a row must require fewer.
    assert later.index(1) == 30 - 1 + 2


@pytest.mark.parametrize(("scale_down_seconds", "samples"), [(None, 3), (10, 1), (60, 6)])
def test_a_moving_average_scales_down_after_its_window(
    scale_down_seconds: float | None, samples: int
) -> None:
    scaler = MovingAverage(
        4.0,
        PolicyBounds(
            slots=4, min_replicas=1, max_replicas=20, scale_down_seconds=scale_down_seconds
        ),
    )

    desired = [
        scaler.desired_replicas(observe(0, at=10.0 * number, current=2)) for number in range(7)
    ]

    assert desired.index(1) == samples - 1


def test_a_moving_average_counts_queued_requests() -> None:
    assert MovingAverage(4.0, BOUNDS).desired_replicas(observe(4, queued=8)) == 3


@pytest.mark.parametrize(
    ("name", "target", "observation", "desired"),
    [
        ("gpu", 0.5, observe(1, 4), 4),
        ("gpu", 0.5, observe(0, 4), 2),
        ("processing", 0.5, observe(4, 4), 4),
        # It never exceeds the slots, however many requests are queued.
        ("processing", 1.0, observe(4, 4, queued=99), 2),
        ("queue", 0.25, observe(4, 4, queued=3), 3),
        ("queue", 0.25, observe(4, 4, queued=0), 2),
        ("average", 0.5, observe(4, 4, queued=2), 5),
    ],
)
def test_each_reference_policy_has_its_metric(
    name: str, target: float, observation: Observation, desired: int
) -> None:
    assert REFERENCE_POLICIES[name].create(target, BOUNDS).desired_replicas(observation) == desired
