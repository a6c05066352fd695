"""Simulated time: who waits for how long, and what the replicas cost."""

from collections.abc import Sequence

import pytest

from slotkeeper.simulation.simulate import Observation, Outcome, ReplicaModel, Simulation
from slotkeeper.simulation.trace import TraceRequest


class Scripted:
    """Wants what its script says at each second, the last for good; keeps all looks."""

    every = 1.0

    def __init__(self, *wanted: int) -> None:
        self._wanted = list(wanted)
        self.looks: list[Observation] = []

    def wanted(self, look: Observation) -> int:
        self.looks.append(look)
        return self._wanted.pop(0) if len(self._wanted) > 1 else self._wanted[0]


def played(
    *calls: tuple[float, float], wanted: Sequence[int] = (1,), slots: int = 1, load: float = 10
) -> tuple[Outcome, Scripted]:
    scaler = Scripted(*wanted)
    simulation = Simulation(ReplicaModel(slots, load, wanted[0]), scaler)
    return simulation.run([TraceRequest(*call) for call in calls]), scaler


def test_who_finds_a_free_slot_does_not_wait() -> None:
    outcome, _ = played((0, 5), (1, 5), slots=2)

    assert outcome.waits == [0, 0]


def test_the_others_wait_in_line_until_one_is_free() -> None:
    outcome, _ = played((0, 5), (1, 5), (2, 5))

    assert outcome.waits == [0, 4, 8]


def test_a_replica_helps_once_it_has_loaded() -> None:
    outcome, _ = played((0.5, 30), (0.5, 5), wanted=(1, 2), load=10)

    # Wanted at second 1, ready at 11.
    assert outcome.waits == [0, 10.5]


def test_a_replica_costs_from_its_creation_until_the_last_call_is_over() -> None:
    outcome, _ = played((0.5, 30), wanted=(1, 2), load=10)

    assert outcome.seconds == 30.5
    assert outcome.replica_seconds == 30.5 + 29.5


def test_one_that_is_to_go_ends_what_it_has_takes_no_more_and_costs_until_then() -> None:
    outcome, _ = played((0.5, 10), (0.6, 20), (2, 5), wanted=(2, 2, 1))

    # Both are busy at second 2 when one is to go: the first of them, whose slot is free at 10.5.
    assert outcome.waits[2] == pytest.approx(18.6)
    assert outcome.replica_seconds == pytest.approx(10.5 + 25.6)


def test_the_idlest_goes_first() -> None:
    outcome, _ = played((0.5, 10), wanted=(2, 2, 1))

    assert outcome.waits == [0]
    assert outcome.replica_seconds == 2 + 10.5


def test_one_that_still_loads_goes_before_an_idle_one() -> None:
    outcome, _ = played((8, 1), wanted=(1, 2, 1), load=5)

    assert outcome.waits == [0]
    assert outcome.replica_seconds == 9 + 1


def test_a_look_shows_what_a_balancer_says() -> None:
    _, scaler = played((0.5, 10), (0.75, 10), wanted=(1, 1, 2))

    look = scaler.looks[2]
    assert (look.sample.at, look.sample.busy_slots, look.sample.queued) == (2, 1, 1)
    assert (look.sample.oldest_queued_seconds, look.sample.peak_demand) == (1.25, 2)
    assert (look.sample.total_slots, look.sample.mean_service_seconds) == (1, None)
    # None for half a second, one for a quarter, and two from then on.
    assert look.sample.mean_demand == pytest.approx((0.25 + 2 * 1.25) / 2)
    assert (look.current, look.busy) == (1, [1])
    # The next one counts the replica that loads, of which no slot can be busy.
    assert (scaler.looks[3].current, scaler.looks[3].busy) == (2, [1])


def test_changes_are_kept_with_their_times() -> None:
    outcome, _ = played((0, 20), wanted=(1, 1, 3, 3, 2))

    assert outcome.changes == [(0, 1), (2, 3), (4, 2)]
