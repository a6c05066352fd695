"""A changed wall clock and a stopped process do not change the number of replicas."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    KEY,
    FakeTime,
    Operator,
    apply_server,
    demand_report,
    replica_count,
    roll_out,
    server_status,
)
from slotkeeper.reconcile.clock import ScheduleClock
from wait_until import until

HOUR = 3600.0
NOON = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)

DEMAND = [(0, 4, 2), (90, 3, 0), (200, 8, 9), (260, 1, 0), (620, 0, 0)]
"""From a second on, busy slots and queued requests: it rises, falls, rises again and ends."""

TO_ZERO = {
    "minReplicas": 0,
    "maxReplicas": 4,
    "idleSeconds": 60,
    "behavior": {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 20}]},
        "scaleDown": {"stabilizationWindowSeconds": 60},
    },
}


async def deploy_idle(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server whose balancer has reported for ten seconds that it is idle."""
    apply_server(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.reconcile()
    await operator.run_for(10)


async def replicas_over_time(changed_at: int, offset: float) -> list[int]:
    """The number of replicas in each second of DEMAND, with the wall clock changed once."""
    cluster, counts = FakeCluster(), list[int]()
    operator = Operator(cluster)
    await deploy_idle(cluster, operator, slots=4, autoscaling=TO_ZERO)
    demand = {second: demand_report(busy=busy, queued=queued) for second, busy, queued in DEMAND}
    for second in range(700):
        reports = operator.balancers.reports
        reports[BALANCER_HOST] = demand.get(second, reports[BALANCER_HOST])
        if second == changed_at:
            operator.time.wall_offset = offset
        await operator.run_for(1)
        counts.append(replica_count(cluster))
    return counts


@pytest.fixture(scope="module")
def undisturbed() -> list[int]:
    return asyncio.run(replicas_over_time(-1, 0))


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
@pytest.mark.parametrize("changed_at", [1, 120, 205, 300, 650])
async def test_a_changed_wall_clock_changes_no_decision(
    undisturbed: list[int], changed_at: int, offset: float
) -> None:
    counts = await replicas_over_time(changed_at, offset)

    assert counts == undisturbed
    assert {0, 1, 2, 3} <= set(counts)


SCHEDULED = {
    "maxReplicas": 4,
    "schedules": [
        {"cron": "0 6 * * *", "minReplicas": 1},
        {"cron": "1 12 * * *", "minReplicas": 3},
    ],
}


async def run_until_schedule(cluster: FakeCluster, operator: Operator) -> None:
    """Run a server without demand until one second before a schedule starts."""
    operator.time.wall_offset = -341.0
    await deploy_idle(cluster, operator, autoscaling=SCHEDULED)
    await operator.run_for(390)
    assert replica_count(cluster) == 1


async def test_a_wall_clock_that_steps_back_and_forth_starts_a_schedule_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    await run_until_schedule(cluster, operator)
    counts = list[int]()

    for step in range(60):
        # One second forward, one second back.
        operator.time.wall_offset = 59 - operator.time.elapsed - step % 2
        await operator.run_for(1)
        counts.append(replica_count(cluster))

    assert counts == [3] * 60
    assert len(server_status(cluster)["scaling"]["history"]) == 1


async def test_a_schedule_that_started_an_hour_early_is_undone(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.time.wall_offset = 70.0
    await deploy_idle(cluster, operator, autoscaling=SCHEDULED)
    early = replica_count(cluster)

    operator.time.wall_offset = 70.0 - HOUR
    await operator.run_for(320)

    assert early == 3
    assert replica_count(cluster) == 1


def test_the_schedule_clock_does_not_follow_a_small_step_back() -> None:
    time = FakeTime()
    schedule_clock = ScheduleClock(time.clock)
    shown = []

    for elapsed in (0, 10, 9, 8, 10, 11, 11 - 299, 12, 12 - 300, 11):
        time.elapsed = elapsed
        shown.append((schedule_clock.now().scheduled - NOON) / timedelta(seconds=1))

    assert shown == [0, 10, 10, 10, 10, 11, 11, 12, -288, 11]


async def test_a_process_that_was_stopped_scales_down_only_after_a_new_window(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator, slots=4, autoscaling={"maxReplicas": 4})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=4)
    await operator.run_for(5)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=12)
    await operator.run_for(290)
    before = replica_count(cluster)

    operator.time.elapsed += 600
    await operator.reconcile()
    after_stop = replica_count(cluster)
    await operator.run_for(300)
    within_window = replica_count(cluster)
    await operator.run_for(2)

    assert (before, after_stop, within_window) == (3, 3, 3)
    assert replica_count(cluster) == 1


async def test_a_process_that_was_stopped_scales_to_zero_only_after_new_idle_time(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(
        cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 60}
    )
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(2)
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(30)

    operator.time.elapsed += 600
    await operator.run_for(60)
    before = replica_count(cluster)
    await operator.run_for(2)

    assert (before, replica_count(cluster)) == (1, 0)


async def test_a_report_that_arrived_before_the_process_was_stopped_is_ignored(
    operator: Operator,
) -> None:
    balancers, responds = operator.balancers, asyncio.Event()
    balancers.reports[BALANCER_HOST] = demand_report(busy=1)
    balancers.delayed[BALANCER_HOST] = responds
    demand = operator.state.demand
    demand.track([f"{BALANCER_HOST}:9090"], None)

    poll = asyncio.create_task(operator.poller.poll([(KEY, demand)]))
    await until(lambda: balancers.polls)
    operator.time.elapsed += 600
    responds.set()
    await poll

    assert demand.scaling_input().sample is None
