"""The simulated scaler makes the same decisions as the operator."""

from datetime import UTC, datetime
from typing import Any

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.scaling.decide import ScalingReason
from slotkeeper.simulation.simulate import ReplicaModel, Simulation
from slotkeeper.simulation.slotkeeper_policy import SlotkeeperScaler
from slotkeeper.simulation.trace import TraceRequest

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def slotkeeper(begin: datetime = MONDAY, **spec: Any) -> SlotkeeperScaler:
    return SlotkeeperScaler(4, Autoscaling.model_validate({"maxReplicas": 5, **spec}), begin)


def test_queued_requests_add_a_replica_within_a_second() -> None:
    scaler = slotkeeper()

    Simulation(ReplicaModel(4, 60), scaler).run([TraceRequest(100.5, 30)] * 6)

    at, decision = scaler.decisions[0]
    assert (at, decision.replicas, decision.reason) == (
        101.0,
        2,
        ScalingReason.DEMAND_ABOVE_CAPACITY,
    )


def test_demand_below_target_removes_it() -> None:
    scaler = slotkeeper(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})

    result = Simulation(ReplicaModel(4, 10), scaler).run(
        [*[TraceRequest(0.5, 30)] * 6, TraceRequest(3600, 1)]
    )

    assert scaler.decisions[-1][1].reason == ScalingReason.DEMAND_BELOW_TARGET
    assert result.changes[-1][1] == 1


def test_behavior_policies_limit_the_changes() -> None:
    policies = [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    scaler = slotkeeper(behavior={"scaleUp": {"policies": policies}})

    result = Simulation(ReplicaModel(4, 500), scaler).run([TraceRequest(0.5, 300)] * 16)

    assert result.changes[1:4] == [(1.0, 2), (61.0, 3), (121.0, 4)]


def test_a_schedule_starts_with_its_minute() -> None:
    schedules = [{"cron": "0 8 * * *", "minReplicas": 3}, {"cron": "0 7 * * *", "minReplicas": 1}]
    scaler = slotkeeper(MONDAY.replace(hour=7, minute=59, second=30), schedules=schedules)

    result = Simulation(ReplicaModel(4, 60), scaler).run([TraceRequest(200, 1)])

    assert result.changes == [(0, 1), (30, 3)]
