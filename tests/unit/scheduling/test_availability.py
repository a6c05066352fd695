"""Deadlines of queued requests, by what is known of the replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling.availability import Availability, QueueLimits

LIMITS = QueueLimits(queue_timeout=60, cold_start_timeout=600, blocked_timeout=10)
PERMANENT = StartBlocker("ModelNotFound", "404", permanent=True)
TRANSIENT = StartBlocker("Unschedulable", "waiting for 1 nvidia.com/gpu", permanent=False)


def after(*events: tuple[float, StartBlocker | bool | None]) -> Availability:
    """The availability after these events: whether there is a replica, or a start blocker."""
    availability = Availability()
    for now, event in events:
        if isinstance(event, bool):
            availability.set_has_replica(event, now)
        else:
            availability.set_blocked(event, now)
    return availability


ROWS = [
    pytest.param([], 100, 700, id="no replica: cold_start_timeout"),
    pytest.param([(0, True)], 100, 160, id="ready replicas: queue_timeout"),
    pytest.param([(300, True)], 100, 360, id="a first replica: queue_timeout from then on"),
    pytest.param([(0, True), (300, False)], 100, 700, id="the last replica was removed"),
    pytest.param([(0, TRANSIENT)], 100, 700, id="a transient blocker: cold_start_timeout"),
    pytest.param([(50, PERMANENT)], 100, 110, id="a permanent blocker, known before"),
    pytest.param([(150, PERMANENT)], 100, 160, id="a permanent blocker, known since"),
    pytest.param([(50, PERMANENT), (105, PERMANENT)], 100, 110, id="reported once more"),
    pytest.param([(50, PERMANENT), (105, TRANSIENT)], 100, 700, id="no longer permanent"),
    pytest.param([(50, PERMANENT), (105, None)], 100, 700, id="withdrawn"),
    pytest.param([(50, PERMANENT), (55, None), (105, PERMANENT)], 100, 115, id="reported again"),
    pytest.param([(695, PERMANENT)], 100, 700, id="known too late to make a difference"),
    pytest.param([(50, PERMANENT), (105, True)], 100, 165, id="a replica in spite of the blocker"),
    pytest.param(
        [(50, PERMANENT), (55, True), (60, PERMANENT), (65, False)],
        100,
        700,
        id="refuted by a replica, and not withdrawn",
    ),
    pytest.param(
        [(50, PERMANENT), (55, True), (60, None), (65, False), (70, PERMANENT)],
        100,
        110,
        id="refuted by a replica, withdrawn, and reported again",
    ),
]


@pytest.mark.parametrize(("events", "arrived", "deadline"), ROWS)
def test_the_deadline_follows_the_availability(
    events: list[tuple[float, StartBlocker | bool | None]], arrived: float, deadline: float
) -> None:
    assert after(*events).deadline(arrived, LIMITS) == deadline


@pytest.mark.parametrize(("blocker", "seconds"), [(None, 5), (TRANSIENT, 30), (PERMANENT, 30)])
def test_retry_after_is_longer_with_a_start_blocker(
    blocker: StartBlocker | None, seconds: float
) -> None:
    assert after((0, blocker)).cold_start_retry_after == seconds


EVENTS = st.lists(
    st.tuples(st.floats(0, 1000), st.sampled_from([True, False, None, TRANSIENT, PERMANENT])),
    max_size=6,
)


@given(EVENTS, st.floats(0, 1000), st.floats(0, 1000))
def test_a_later_arrival_never_has_an_earlier_deadline(
    events: list[tuple[float, StartBlocker | bool | None]], one: float, other: float
) -> None:
    availability = after(*sorted(events, key=lambda event: event[0]))
    first, second = sorted((one, other))

    assert availability.deadline(first, LIMITS) <= availability.deadline(second, LIMITS)
