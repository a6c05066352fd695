"""The simulated scaler decides as the operator does."""

from datetime import UTC, datetime
from typing import Any

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.scaling.decide import ScalingReason
from slotkeeper.simulation.simulate import ReplicaModel, Simulation
from slotkeeper.simulation.slotkeeper_policy import Slots
from slotkeeper.simulation.trace import TraceRequest

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def scaler(begin: datetime = MONDAY, **spec: Any) -> Slots:
    return Slots(4, Autoscaling.model_validate({"maxReplicas": 5, **spec}), begin)


def test_requests_that_wait_bring_a_replica_within_a_second() -> None:
    ours = scaler()

    Simulation(ReplicaModel(4, 60), ours).run([TraceRequest(100.5, 30)] * 6)

    at, decision = ours.decisions[0]
    assert (at, decision.replicas, decision.reason) == (
        101.0,
        2,
        ScalingReason.DEMAND_ABOVE_CAPACITY,
    )


def test_quiet_takes_it_away() -> None:
    ours = scaler(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})

    outcome = Simulation(ReplicaModel(4, 10), ours).run(
        [*[TraceRequest(0.5, 30)] * 6, TraceRequest(3600, 1)]
    )

    assert ours.decisions[-1][1].reason == ScalingReason.DEMAND_BELOW_TARGET
    assert outcome.changes[-1][1] == 1


def test_the_policies_of_behavior_count_the_changes() -> None:
    policies = [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    ours = scaler(behavior={"scaleUp": {"policies": policies}})

    outcome = Simulation(ReplicaModel(4, 500), ours).run([TraceRequest(0.5, 300)] * 16)

    assert outcome.changes[1:4] == [(1.0, 2), (61.0, 3), (121.0, 4)]


def test_a_schedule_begins_with_its_minute() -> None:
    schedules = [{"cron": "0 8 * * *", "minReplicas": 3}, {"cron": "0 7 * * *", "minReplicas": 1}]
    ours = scaler(MONDAY.replace(hour=7, minute=59, second=30), schedules=schedules)

    outcome = Simulation(ReplicaModel(4, 60), ours).run([TraceRequest(200, 1)])

    assert outcome.changes == [(0, 1), (30, 3)]
