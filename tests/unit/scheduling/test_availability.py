"""How long anyone waits, by what is known of the replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling.availability import Availability, QueueLimits

BOUNDS = QueueLimits(queue_timeout=60, cold_start_timeout=600, blocked_timeout=10)
LASTING = StartBlocker("ModelNotFound", "404", permanent=True)
PASSING = StartBlocker("Unschedulable", "waiting for 1 nvidia.com/gpu", permanent=False)


def outlook(*events: tuple[float, StartBlocker | bool | None]) -> Availability:
    """After what became known when: of replicas (a truth), or of what keeps them."""
    made = Availability()
    for now, event in events:
        if isinstance(event, bool):
            made.set_has_replica(event, now)
        else:
            made.set_blocked(event, now)
    return made


ROWS = [
    pytest.param([], 100, 700, id="no replica: the long limit"),
    pytest.param([(0, True)], 100, 160, id="busy replicas: the short one"),
    pytest.param([(300, True)], 100, 360, id="a first replica: the short one from then on"),
    pytest.param([(0, True), (300, False)], 100, 700, id="the last replica went"),
    pytest.param([(0, PASSING)], 100, 700, id="what may pass: the long limit"),
    pytest.param([(50, LASTING)], 100, 110, id="what lasts, known before"),
    pytest.param([(150, LASTING)], 100, 160, id="what lasts, known since"),
    pytest.param([(50, LASTING), (105, LASTING)], 100, 110, id="said once more"),
    pytest.param([(50, LASTING), (105, PASSING)], 100, 700, id="no longer lasting"),
    pytest.param([(50, LASTING), (105, None)], 100, 700, id="gone"),
    pytest.param([(50, LASTING), (55, None), (105, LASTING)], 100, 115, id="come back"),
    pytest.param([(695, LASTING)], 100, 700, id="known too late to make a difference"),
    pytest.param([(50, LASTING), (105, True)], 100, 165, id="there is a replica all the same"),
    pytest.param(
        [(50, LASTING), (55, True), (60, LASTING), (65, False)],
        100,
        700,
        id="there was one all the same, and nobody took it back",
    ),
    pytest.param(
        [(50, LASTING), (55, True), (60, None), (65, False), (70, LASTING)],
        100,
        110,
        id="it was taken back, and is so again",
    ),
]


@pytest.mark.parametrize(("events", "arrived", "deadline"), ROWS)
def test_how_long_it_is_of_use_to_wait(
    events: list[tuple[float, StartBlocker | bool | None]], arrived: float, deadline: float
) -> None:
    assert outlook(*events).deadline(arrived, BOUNDS) == deadline


@pytest.mark.parametrize(("obstacle", "seconds"), [(None, 5), (PASSING, 30), (LASTING, 30)])
def test_who_is_refused_comes_back_later_where_something_is_wrong(
    obstacle: StartBlocker | None, seconds: float
) -> None:
    assert outlook((0, obstacle)).retry_after == seconds


EVENTS = st.lists(
    st.tuples(st.floats(0, 1000), st.sampled_from([True, False, None, PASSING, LASTING])),
    max_size=6,
)


@given(EVENTS, st.floats(0, 1000), st.floats(0, 1000))
def test_nobody_waits_less_than_who_came_later(
    events: list[tuple[float, StartBlocker | bool | None]], one: float, other: float
) -> None:
    made = outlook(*sorted(events, key=lambda event: event[0]))
    first, second = sorted((one, other))

    assert made.deadline(first, BOUNDS) <= made.deadline(second, BOUNDS)
