"""Balancers are asked; a silent one leaves a gap."""

import pytest

from operator_harness import KEY, Operator, numbers
from scaling_samples import policy
from slotkeeper.reconcile.demand.poller import addresses
from slotkeeper.scaling.decide import ScalingInput
from slotkeeper.scaling.history import Change, History

BROKEN = [
    pytest.param({}, id="empty"),
    pytest.param([], id="no object"),
    pytest.param(numbers() | {"slots": None}, id="no slots"),
    pytest.param(numbers() | {"queued": "many"}, id="words for numbers"),
    pytest.param(numbers() | {"meanServiceSeconds": "long"}, id="words for seconds"),
]


async def poll(operator: Operator) -> None:
    await operator.poller.poll([(KEY, operator.state.demand)])


async def pass_time(operator: Operator, seconds: int) -> None:
    for _ in range(seconds):
        operator.time.passed += 1
        await poll(operator)


async def test_a_look_is_a_sample(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=3, queued=5, oldest=3.2)
    operator.state.demand.track(["10.0.0.1:9090"], None)

    await poll(operator)

    sample = operator.state.demand.scaling_input().sample
    assert sample is not None
    assert (sample.busy_slots, sample.queued, sample.oldest_queued_seconds, sample.peak_demand) == (
        3,
        5,
        3.2,
        8,
    )


async def test_what_one_that_stands_by_holds_is_added_to_what_the_leading_one_says(
    operator: Operator,
) -> None:
    operator.balancers.says |= {
        "10.0.0.1": numbers(queued=2, total=0, oldest=1.0) | {"leader": False},
        "10.0.0.2": numbers(busy=4, total=8),
    }
    operator.state.demand.track(["10.0.0.1:9090", "10.0.0.2:9090"], None)

    await poll(operator)

    newest = operator.state.demand.latest(operator.time.passed)
    assert newest is not None
    assert (newest.sample.total_slots, newest.sample.busy_slots, newest.sample.queued) == (8, 4, 2)


async def test_one_that_stands_by_may_be_silent(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.state.demand.track(["10.0.0.1:9090", "10.0.0.2:9090"], None)

    await poll(operator)

    sample = operator.state.demand.scaling_input().sample
    assert sample is not None
    assert sample.busy_slots == 1


async def test_without_the_one_that_leads_there_is_a_gap_not_a_low_number(
    operator: Operator,
) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1) | {"leader": False}
    operator.state.demand.track(["10.0.0.1:9090", "10.0.0.2:9090"], None)

    await poll(operator)

    assert operator.state.demand.scaling_input() == ScalingInput()


@pytest.mark.parametrize("said", BROKEN)
async def test_nonsense_is_a_gap(operator: Operator, said: object) -> None:
    operator.balancers.says["10.0.0.1"] = said
    operator.state.demand.track(["10.0.0.1:9090"], None)

    await poll(operator)

    assert operator.state.demand.scaling_input() == ScalingInput()


async def test_only_what_a_decision_looks_back_to_is_kept(operator: Operator) -> None:
    operator.state.demand.track(["10.0.0.1:9090"], policy(slots=1, targetSlotUtilization=100))

    for second in range(500):
        operator.balancers.says["10.0.0.1"] = numbers(busy=second % 2)
        await pass_time(operator, 1)

    history = operator.state.demand.scaling_input().history
    assert history.since == 500 - 300
    assert len(history.intervals) <= 302


async def test_what_was_asked_for_is_of_no_use_without_autoscaling(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers()
    operator.state.demand.track(["10.0.0.1:9090"], policy())
    await pass_time(operator, 5)
    operator.state.demand.scaled(1, operator.time.passed)

    operator.state.demand.track(["10.0.0.1:9090"], None)

    known = operator.state.demand.scaling_input()
    assert (known.history, known.changes) == (History(), ())


async def test_changes_are_kept_for_the_longest_period(operator: Operator) -> None:
    operator.state.demand.track([], policy())
    operator.state.demand.scaled(1, operator.time.passed)
    operator.state.demand.scaled(0, operator.time.passed)
    operator.time.passed += 1800
    operator.state.demand.scaled(-2, operator.time.passed)

    assert operator.state.demand.scaling_input().changes == (Change(1800.0, -2),)


async def test_rates_are_those_of_the_one_that_leads(operator: Operator) -> None:
    measured = {"meanDemand": 0.5, "meanServiceSeconds": 6.0}
    operator.balancers.says |= {
        "10.0.0.1": numbers() | measured | {"leader": False},
        "10.0.0.2": numbers() | {"meanDemand": 0.4, "meanServiceSeconds": None},
    }
    operator.state.demand.track(["10.0.0.1:9090", "10.0.0.2:9090"], None)

    await poll(operator)

    sample = operator.state.demand.scaling_input().sample
    assert sample is not None
    assert (sample.mean_demand, sample.mean_service_seconds) == (0.4, None)


async def test_a_balancer_that_measures_no_rates_is_read_all_the_same(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.state.demand.track(["10.0.0.1:9090"], None)

    await poll(operator)

    assert operator.state.demand.scaling_input().sample is not None


async def test_an_old_reading_is_no_news(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.state.demand.track(["10.0.0.1:9090"], policy())
    await pass_time(operator, 1)
    operator.balancers.says.clear()

    await pass_time(operator, 6)

    assert operator.state.demand.latest(operator.time.passed) is None


async def test_who_waits_for_a_turn_keeps_its_numbers_until_then(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.state.demand.track(["10.0.0.1:9090"], None)
    await poll(operator)

    operator.time.passed += 60
    assert operator.state.demand.latest(operator.time.passed)
    operator.time.passed += 1
    assert operator.state.demand.latest(operator.time.passed) is None


def test_only_ready_balancers_are_asked_and_ipv6_is_bracketed() -> None:
    def pod(host: str, status: str) -> dict[str, object]:
        return {"status": {"podIP": host, "conditions": [{"type": "Ready", "status": status}]}}

    pods = [pod("fd00::7", "True"), pod("10.0.0.2", "False"), pod("10.0.0.1", "True")]

    assert addresses(pods) == ["10.0.0.1:9090", "[fd00::7]:9090"]


async def test_a_silent_balancer_is_asked_ever_more_rarely_until_another_takes_its_place(
    operator: Operator,
) -> None:
    operator.state.demand.track(["10.0.0.1:9090"], None)
    await pass_time(operator, 100)
    of_a_silent_one = operator.balancers.polls

    operator.balancers.says["10.0.0.2"] = numbers(busy=1)
    operator.state.demand.track(["10.0.0.2:9090"], None)
    await pass_time(operator, 1)

    assert of_a_silent_one < 10
    assert operator.state.demand.latest(operator.time.passed) is not None
