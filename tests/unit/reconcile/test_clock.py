"""Clocks that are set, and processes that stand still: neither changes how many replicas run."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, Time, numbers, roll_out, server_status, stored
from slotkeeper.kube.kinds import DEPLOYMENTS
from slotkeeper.reconcile.clock import ScheduleClock
from wait_until import until

HOUR = 3600.0
NOON = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)

DAY = [(0, 4, 2), (90, 3, 0), (200, 8, 9), (260, 1, 0), (620, 0, 0)]
"""From a second on, busy slots and waiting requests: up, down again, up once more, to zero."""

TO_ZERO = {
    "minReplicas": 0,
    "maxReplicas": 4,
    "idleSeconds": 60,
    "behavior": {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 20}]},
        "scaleDown": {"stabilizationWindowSeconds": 60},
    },
}


def replicas(cluster: FakeCluster) -> int:
    wanted: int = cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"]
    return wanted


async def serving(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """A server whose balancer has told for ten seconds that there is nothing to do."""
    stored(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.says["10.0.0.1"] = numbers()
    await operator.reconcile()
    await operator.pass_time(10)


async def a_day(set_at: int, set_by: float) -> list[int]:
    """How many replicas there were in each second of DAY, the clock set once."""
    cluster, seen = FakeCluster(), list[int]()
    operator = Operator(cluster)
    await serving(cluster, operator, slots=4, autoscaling=TO_ZERO)
    demand = {second: numbers(busy=busy, queued=waiting) for second, busy, waiting in DAY}
    for second in range(700):
        says = operator.balancers.says
        says["10.0.0.1"] = demand.get(second, says["10.0.0.1"])
        if second == set_at:
            operator.time.set_by = set_by
        await operator.pass_time(1)
        seen.append(replicas(cluster))
    return seen


@pytest.fixture(scope="module")
def undisturbed() -> list[int]:
    return asyncio.run(a_day(-1, 0))


@pytest.mark.parametrize("set_by", [HOUR, -HOUR])
@pytest.mark.parametrize("set_at", [1, 120, 205, 300, 650])
async def test_a_clock_that_is_set_changes_no_decision(
    undisturbed: list[int], set_at: int, set_by: float
) -> None:
    seen = await a_day(set_at, set_by)

    assert seen == undisturbed
    assert {0, 1, 2, 3} <= set(seen)


MORNING = {
    "maxReplicas": 4,
    "schedules": [
        {"cron": "0 6 * * *", "minReplicas": 1},
        {"cron": "1 12 * * *", "minReplicas": 3},
    ],
}


async def before_the_minute(cluster: FakeCluster, operator: Operator) -> None:
    """A server without demand for its whole window, one second before a schedule begins."""
    operator.time.set_by = -341.0
    await serving(cluster, operator, autoscaling=MORNING)
    await operator.pass_time(390)
    assert replicas(cluster) == 1


async def test_a_clock_that_trembles_at_a_schedules_minute_changes_replicas_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    await before_the_minute(cluster, operator)
    seen = list[int]()

    for step in range(60):
        # One second forth, one second back.
        operator.time.set_by = 59 - operator.time.passed - step % 2
        await operator.pass_time(1)
        seen.append(replicas(cluster))

    assert seen == [3] * 60
    assert len(server_status(cluster)["scaling"]["history"]) == 1


async def test_a_clock_that_was_an_hour_ahead_undoes_what_was_too_early(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.time.set_by = 70.0
    await serving(cluster, operator, autoscaling=MORNING)
    early = replicas(cluster)

    operator.time.set_by = 70.0 - HOUR
    await operator.pass_time(320)

    assert early == 3
    assert replicas(cluster) == 1


def test_a_day_goes_on_where_its_clock_was_put_right() -> None:
    time = Time()
    calendar = ScheduleClock(time.clock)
    seen = []

    for passed in (0, 10, 9, 8, 10, 11, 11 - 299, 12, 12 - 300, 11):
        time.passed = passed
        seen.append((calendar.now().scheduled - NOON) / timedelta(seconds=1))

    assert seen == [0, 10, 10, 10, 10, 11, 11, 12, -288, 11]


async def test_an_operator_that_stood_still_takes_nothing_away_before_a_new_window(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator, slots=4, autoscaling={"maxReplicas": 4})
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=4)
    await operator.pass_time(5)
    operator.balancers.says["10.0.0.1"] = numbers(total=12)
    await operator.pass_time(290)
    before = replicas(cluster)

    operator.time.passed += 600
    await operator.reconcile()
    unseen = replicas(cluster)
    await operator.pass_time(300)
    held = replicas(cluster)
    await operator.pass_time(2)

    assert (before, unseen, held) == (3, 3, 3)
    assert replicas(cluster) == 1


async def test_an_operator_that_stood_still_lets_no_last_replica_go_at_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(
        cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 60}
    )
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(2)
    operator.balancers.says["10.0.0.1"] = numbers()
    await operator.pass_time(30)

    operator.time.passed += 600
    await operator.pass_time(60)
    held = replicas(cluster)
    await operator.pass_time(2)

    assert (held, replicas(cluster)) == (1, 0)


async def test_an_answer_from_before_the_process_stood_still_is_none(operator: Operator) -> None:
    balancers, answers = operator.balancers, asyncio.Event()
    balancers.says["10.0.0.1"], balancers.slow["10.0.0.1"] = numbers(busy=1), answers
    demand = operator.state.demand
    demand.track(["10.0.0.1:9090"], None)

    look = asyncio.create_task(operator.poller.poll([(KEY, demand)]))
    await until(lambda: balancers.polls)
    operator.time.passed += 600
    answers.set()
    await look

    assert demand.scaling_input().sample is None
