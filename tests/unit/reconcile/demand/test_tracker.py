"""Demand over time: polls become samples, and a missing report is a gap, never a zero."""

import pytest

from operator_harness import KEY, Operator, demand_report
from scaling_samples import policy
from slotkeeper.reconcile.demand.poller import addresses
from slotkeeper.scaling.decide import ScalingInput
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.sample import Sample

FIRST, SECOND = "10.0.0.1", "10.0.0.2"
"""Hosts of balancers."""

MALFORMED = [
    pytest.param({}, id="empty"),
    pytest.param([], id="no object"),
    pytest.param(demand_report() | {"slots": None}, id="no slots"),
    pytest.param(demand_report() | {"queued": "many"}, id="text instead of a number"),
    pytest.param(demand_report() | {"meanServiceSeconds": "long"}, id="text instead of seconds"),
]


def metrics_addresses(*hosts: str) -> list[str]:
    return [f"{host}:9090" for host in hosts]


async def poll(operator: Operator) -> None:
    await operator.poller.poll([(KEY, operator.state.demand)])


async def poll_for(operator: Operator, seconds: int) -> None:
    for _ in range(seconds):
        operator.time.elapsed += 1
        await poll(operator)


def last_sample(operator: Operator) -> Sample:
    sample = operator.state.demand.scaling_input().sample
    assert sample is not None
    return sample


async def test_a_report_becomes_a_sample(operator: Operator) -> None:
    operator.balancers.reports[FIRST] = demand_report(busy=3, queued=5, oldest=3.2)
    operator.state.demand.track(metrics_addresses(FIRST), None)

    await poll(operator)

    sample = last_sample(operator)
    assert (sample.busy_slots, sample.queued, sample.oldest_queued_seconds, sample.peak_demand) == (
        3,
        5,
        3.2,
        8,
    )


async def test_the_requests_of_a_standby_are_added_to_those_of_the_leader(
    operator: Operator,
) -> None:
    operator.balancers.reports |= {
        FIRST: demand_report(queued=2, total=0, oldest=1.0) | {"leader": False},
        SECOND: demand_report(busy=4, total=8),
    }
    operator.state.demand.track(metrics_addresses(FIRST, SECOND), None)

    await poll(operator)

    newest = operator.state.demand.latest(operator.time.elapsed)
    assert newest is not None
    assert (newest.sample.total_slots, newest.sample.busy_slots, newest.sample.queued) == (8, 4, 2)


async def test_preemptible_requests_of_all_balancers_keep_one_replica(operator: Operator) -> None:
    for host, leader in ((FIRST, True), (SECOND, False)):
        report = demand_report() | {"leader": leader, "preemptible": 2}
        operator.balancers.reports[host] = report
    operator.state.demand.track(metrics_addresses(FIRST, SECOND), policy(minReplicas=0))

    await poll(operator)

    assert (last_sample(operator).preemptible, last_sample(operator).demand) == (4, 0)
    assert [each.replicas for each in operator.state.demand.history.intervals] == [1]


async def test_a_report_of_the_leader_alone_is_enough(operator: Operator) -> None:
    operator.balancers.reports[FIRST] = demand_report(busy=1)
    operator.state.demand.track(metrics_addresses(FIRST, SECOND), None)

    await poll(operator)

    assert last_sample(operator).busy_slots == 1


async def test_without_a_report_of_the_leader_there_is_a_gap_and_no_lower_sum(
    operator: Operator,
) -> None:
    operator.balancers.reports[FIRST] = demand_report(busy=1) | {"leader": False}
    operator.state.demand.track(metrics_addresses(FIRST, SECOND), None)

    await poll(operator)

    assert operator.state.demand.scaling_input() == ScalingInput()


@pytest.mark.parametrize("report", MALFORMED)
async def test_a_malformed_report_is_a_gap(operator: Operator, report: object) -> None:
    operator.balancers.reports[FIRST] = report
    operator.state.demand.track(metrics_addresses(FIRST), None)

    await poll(operator)

    assert operator.state.demand.scaling_input() == ScalingInput()


async def test_the_history_is_as_long_as_the_longest_window(operator: Operator) -> None:
    operator.state.demand.track(
        metrics_addresses(FIRST), policy(slots=1, targetSlotUtilization=100)
    )

    for second in range(500):
        operator.balancers.reports[FIRST] = demand_report(busy=second % 2)
        await poll_for(operator, 1)

    history = operator.state.demand.scaling_input().history
    assert history.since == 500 - 300
    assert len(history.intervals) <= 302


async def test_without_autoscaling_no_history_is_kept(operator: Operator) -> None:
    operator.balancers.reports[FIRST] = demand_report()
    operator.state.demand.track(metrics_addresses(FIRST), policy())
    await poll_for(operator, 5)
    operator.state.demand.scaled(1, operator.time.elapsed)

    operator.state.demand.track(metrics_addresses(FIRST), None)

    kept = operator.state.demand.scaling_input()
    assert (kept.history, kept.changes) == (History(), ())


async def test_changes_are_kept_for_the_longest_period_of_a_policy(operator: Operator) -> None:
    operator.state.demand.track([], policy())
    operator.state.demand.scaled(1, operator.time.elapsed)
    operator.state.demand.scaled(0, operator.time.elapsed)
    operator.time.elapsed += 1800
    operator.state.demand.scaled(-2, operator.time.elapsed)

    assert operator.state.demand.scaling_input().changes == (Change(1800.0, -2),)


async def test_means_are_those_of_the_leader(operator: Operator) -> None:
    measured = {"meanDemand": 0.5, "meanServiceSeconds": 6.0}
    operator.balancers.reports |= {
        FIRST: demand_report() | measured | {"leader": False},
        SECOND: demand_report() | {"meanDemand": 0.4, "meanServiceSeconds": None},
    }
    operator.state.demand.track(metrics_addresses(FIRST, SECOND), None)

    await poll(operator)

    sample = last_sample(operator)
    assert (sample.mean_demand, sample.mean_service_seconds) == (0.4, None)


async def test_a_report_without_means_is_a_sample(operator: Operator) -> None:
    operator.balancers.reports[FIRST] = demand_report(busy=1)
    operator.state.demand.track(metrics_addresses(FIRST), None)

    await poll(operator)

    assert operator.state.demand.scaling_input().sample is not None


async def test_an_old_report_is_not_current(operator: Operator) -> None:
    operator.balancers.reports[FIRST] = demand_report(busy=1)
    operator.state.demand.track(metrics_addresses(FIRST), policy())
    await poll_for(operator, 1)
    operator.balancers.reports.clear()

    await poll_for(operator, 6)

    assert operator.state.demand.latest(operator.time.elapsed) is None


async def test_without_autoscaling_a_report_is_current_for_a_minute(operator: Operator) -> None:
    operator.balancers.reports[FIRST] = demand_report(busy=1)
    operator.state.demand.track(metrics_addresses(FIRST), None)
    await poll(operator)

    operator.time.elapsed += 60
    assert operator.state.demand.latest(operator.time.elapsed)
    operator.time.elapsed += 1
    assert operator.state.demand.latest(operator.time.elapsed) is None


def test_only_ready_balancers_are_polled_and_ipv6_addresses_are_bracketed() -> None:
    def pod(host: str, status: str) -> dict[str, object]:
        return {"status": {"podIP": host, "conditions": [{"type": "Ready", "status": status}]}}

    pods = [pod("fd00::7", "True"), pod("10.0.0.2", "False"), pod("10.0.0.1", "True")]

    assert addresses(pods) == ["10.0.0.1:9090", "[fd00::7]:9090"]


async def test_an_unreachable_balancer_is_polled_with_a_back_off_that_its_successor_resets(
    operator: Operator,
) -> None:
    operator.state.demand.track(metrics_addresses(FIRST), None)
    await poll_for(operator, 100)
    polls_of_unreachable = operator.balancers.polls

    operator.balancers.reports[SECOND] = demand_report(busy=1)
    operator.state.demand.track(metrics_addresses(SECOND), None)
    await poll_for(operator, 1)

    assert polls_of_unreachable < 10
    assert operator.state.demand.latest(operator.time.elapsed) is not None
