"""Queue waits and replica-seconds in simulated time."""

from collections.abc import Sequence

import pytest

from slotkeeper.simulation.simulate import Observation, ReplicaModel, Simulation, SimulationResult
from slotkeeper.simulation.trace import TraceRequest


class Scripted:
    """Follows a script second by second, the last number for good; keeps all observations."""

    interval_seconds = 1.0

    def __init__(self, *script: int) -> None:
        self._script = list(script)
        self.observations: list[Observation] = []

    def desired_replicas(self, observation: Observation) -> int:
        self.observations.append(observation)
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]


def simulate(
    *requests: tuple[float, float], desired: Sequence[int] = (1,), slots: int = 1, load: float = 10
) -> tuple[SimulationResult, Scripted]:
    scaler = Scripted(*desired)
    simulation = Simulation(ReplicaModel(slots, load, desired[0]), scaler)
    return simulation.run([TraceRequest(*each) for each in requests]), scaler


def test_a_request_that_finds_a_free_slot_does_not_wait() -> None:
    result, _ = simulate((0, 5), (1, 5), slots=2)

    assert result.waits == [0, 0]


def test_other_requests_are_queued_until_a_slot_is_free() -> None:
    result, _ = simulate((0, 5), (1, 5), (2, 5))

    assert result.waits == [0, 4, 8]


def test_a_replica_serves_once_it_has_loaded() -> None:
    result, _ = simulate((0.5, 30), (0.5, 5), desired=(1, 2), load=10)

    # Created at second 1, ready at 11.
    assert result.waits == [0, 10.5]


def test_a_replica_costs_from_its_creation_until_the_last_request_completes() -> None:
    result, _ = simulate((0.5, 30), desired=(1, 2), load=10)

    assert result.seconds == 30.5
    assert result.replica_seconds == 30.5 + 29.5


def test_a_draining_replica_completes_its_requests_gets_no_more_and_costs_until_then() -> None:
    result, _ = simulate((0.5, 10), (0.6, 20), (2, 5), desired=(2, 2, 1))

    # Both are busy at second 2 when one is removed: the first, whose slot is free at 10.5.
    assert result.waits[2] == pytest.approx(18.6)
    assert result.replica_seconds == pytest.approx(10.5 + 25.6)


def test_the_replica_with_the_fewest_busy_slots_is_removed_first() -> None:
    result, _ = simulate((0.5, 10), desired=(2, 2, 1))

    assert result.waits == [0]
    assert result.replica_seconds == 2 + 10.5


def test_a_loading_replica_is_removed_before_an_idle_one() -> None:
    result, _ = simulate((8, 1), desired=(1, 2, 1), load=5)

    assert result.waits == [0]
    assert result.replica_seconds == 9 + 1


def test_an_observation_has_the_metrics_of_a_balancer() -> None:
    _, scaler = simulate((0.5, 10), (0.75, 10), desired=(1, 1, 2))

    observation = scaler.observations[2]
    sample = observation.sample
    assert (sample.at, sample.busy_slots, sample.queued) == (2, 1, 1)
    assert (sample.oldest_queued_seconds, sample.peak_demand) == (1.25, 2)
    assert (sample.total_slots, sample.mean_service_seconds) == (1, None)
    # A demand of 0 for half a second, of 1 for a quarter, and of 2 from then on.
    assert sample.mean_demand == pytest.approx((0.25 + 2 * 1.25) / 2)
    assert (observation.current_replicas, observation.busy_slots) == (1, [1])
    # The next one counts the loading replica, which has no busy slots.
    following = scaler.observations[3]
    assert (following.current_replicas, following.busy_slots) == (2, [1])


def test_changes_are_recorded_with_their_times() -> None:
    result, _ = simulate((0, 20), desired=(1, 1, 3, 3, 2))

    assert result.changes == [(0, 1), (2, 3), (4, 2)]
