"""How others scale: the rules that they document, step by step."""

import pytest

from slotkeeper.scaling.sample import Sample
from slotkeeper.simulation.reference_policies import PEERS, Hpa, MovingAverage, PolicyBounds
from slotkeeper.simulation.simulate import Observation

BOUNDS = PolicyBounds(slots=4, least=1, most=20)


def look(
    *values: int, at: float = 0.0, current: int | None = None, waiting: int = 0
) -> Observation:
    """Busy slots of each ready replica, of `current` replicas."""
    busy = sum(values)
    sample = Sample(at, busy, waiting, 0.0, busy + waiting)
    return Observation(sample, len(values) if current is None else current, values)


def hpa(target: float = 2.0) -> Hpa:
    return Hpa(lambda seen: [float(busy) for busy in seen.busy], target, BOUNDS)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        pytest.param(look(4, 4), 4, id="twice the target"),
        pytest.param(look(3, 2), 3, id="rounded up"),
        pytest.param(look(2, 2, 2, 2, 2, 3), 6, id="within a tenth"),
        pytest.param(look(4, current=2), 2, id="what loads takes its part, at nothing"),
        pytest.param(look(4, 4, 4, current=4), 6, id="but more are asked for"),
        pytest.param(look(current=3), 3, id="nothing is known"),
        pytest.param(look(*[4] * 3), 6, id="twice as many at most, or"),
        pytest.param(look(40), 5, id="four more"),
        pytest.param(look(*[4] * 12), 20, id="not above the most"),
    ],
)
def test_an_hpa_goes_up_at_once(seen: Observation, wanted: int) -> None:
    assert hpa().wanted(seen) == wanted


def test_an_hpa_goes_down_to_the_most_of_five_minutes() -> None:
    scaler = hpa()
    steps = [scaler.wanted(look(2, 2, 2, 2, at=0.0)), scaler.wanted(look(1, 1, 1, 1, at=15.0))]
    steps += [scaler.wanted(look(0, 0, 0, 0, at=at)) for at in (285.0, 300.0, 315.0, 330.0)]

    assert steps == [4, 4, 4, 2, 1, 1]


def test_what_loads_counts_as_at_its_target_when_fewer_are_asked_for() -> None:
    scaler = hpa()
    scaler.wanted(look(0, 0, current=4))

    # (0 + 0 + 2 * 2) / 4 is half the target.
    assert scaler.wanted(look(0, 0, current=4, at=300.0)) == 2


def test_a_moving_average_forgets_after_ten_minutes() -> None:
    scaler = MovingAverage(4.0, BOUNDS)

    wanted = [scaler.wanted(look(8, at=10.0 * number, current=2)) for number in range(60)]
    assert set(wanted) == {2}
    later = [scaler.wanted(look(0, at=600 + 10.0 * number, current=2)) for number in range(60)]
    # A mean of 4 after half of it; three looks in a row must say so.
    assert later.index(1) == 30 - 1 + 2


@pytest.mark.parametrize(("down_seconds", "looks"), [(None, 3), (10, 1), (60, 6)])
def test_a_moving_average_waits_before_there_are_fewer(
    down_seconds: float | None, looks: int
) -> None:
    scaler = MovingAverage(4.0, PolicyBounds(slots=4, least=1, most=20, down_seconds=down_seconds))

    wanted = [scaler.wanted(look(0, at=10.0 * number, current=2)) for number in range(7)]

    assert wanted.index(1) == looks - 1


def test_a_moving_average_counts_who_waits() -> None:
    assert MovingAverage(4.0, BOUNDS).wanted(look(4, waiting=8)) == 3


@pytest.mark.parametrize(
    ("name", "target", "seen", "wanted"),
    [
        ("gpu", 0.5, look(1, 4), 4),
        ("gpu", 0.5, look(0, 4), 2),
        ("processing", 0.5, look(4, 4), 4),
        # There are never more than slots, however many wait.
        ("processing", 1.0, look(4, 4, waiting=99), 2),
        ("queue", 0.25, look(4, 4, waiting=3), 3),
        ("queue", 0.25, look(4, 4, waiting=0), 2),
        ("average", 0.5, look(4, 4, waiting=2), 5),
    ],
)
def test_each_peer_measures_its_own(
    name: str, target: float, seen: Observation, wanted: int
) -> None:
    assert PEERS[name].make(target, BOUNDS).wanted(seen) == wanted
