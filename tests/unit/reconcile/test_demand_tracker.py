"""Balancers are asked; a silent one leaves a gap."""

import pytest

from operator_harness import KEY, Operator, numbers
from scaling_samples import policy
from slotkeeper.reconcile.demand.tracker import addresses
from slotkeeper.scaling.decide import ScalingInput
from slotkeeper.scaling.history import Change, History

BROKEN = [
    pytest.param({}, id="empty"),
    pytest.param([], id="no object"),
    pytest.param(numbers() | {"slots": None}, id="no slots"),
    pytest.param(numbers() | {"queued": "many"}, id="words for numbers"),
    pytest.param(numbers() | {"meanServiceSeconds": "long"}, id="words for seconds"),
]


async def test_a_look_is_a_sample(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=3, queued=5, oldest=3.2)
    operator.demand.track(KEY, ["10.0.0.1:9090"])

    await operator.demand.poll()

    sample = operator.demand.scaling_input(KEY).sample
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
    operator.demand.track(KEY, ["10.0.0.1:9090", "10.0.0.2:9090"])

    await operator.demand.poll()

    newest = operator.demand.latest(KEY)
    assert newest is not None
    assert (newest.sample.total_slots, newest.sample.busy_slots, newest.sample.queued) == (8, 4, 2)


async def test_one_that_stands_by_may_be_silent(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.demand.track(KEY, ["10.0.0.1:9090", "10.0.0.2:9090"])

    await operator.demand.poll()

    sample = operator.demand.scaling_input(KEY).sample
    assert sample is not None
    assert sample.busy_slots == 1


async def test_without_the_one_that_leads_there_is_a_gap_not_a_low_number(
    operator: Operator,
) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1) | {"leader": False}
    operator.demand.track(KEY, ["10.0.0.1:9090", "10.0.0.2:9090"])

    await operator.demand.poll()

    assert operator.demand.scaling_input(KEY) == ScalingInput()


@pytest.mark.parametrize("said", BROKEN)
async def test_nonsense_is_a_gap(operator: Operator, said: object) -> None:
    operator.balancers.says["10.0.0.1"] = said
    operator.demand.track(KEY, ["10.0.0.1:9090"])

    await operator.demand.poll()

    assert operator.demand.scaling_input(KEY) == ScalingInput()


async def test_only_what_a_decision_looks_back_to_is_kept(operator: Operator) -> None:
    operator.demand.track(KEY, ["10.0.0.1:9090"], policy(slots=1, targetSlotUtilization=100))

    for second in range(500):
        operator.balancers.says["10.0.0.1"] = numbers(busy=second % 2)
        await operator.pass_time(1)

    history = operator.demand.scaling_input(KEY).history
    assert history.since == 500 - 300
    assert len(history.intervals) <= 302


async def test_what_was_asked_for_is_of_no_use_without_autoscaling(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers()
    operator.demand.track(KEY, ["10.0.0.1:9090"], policy())
    await operator.pass_time(5)
    operator.demand.scaled(KEY, 1)

    operator.demand.track(KEY, ["10.0.0.1:9090"])

    known = operator.demand.scaling_input(KEY)
    assert (known.history, known.changes) == (History(), ())


async def test_changes_are_kept_for_the_longest_period(operator: Operator) -> None:
    operator.demand.track(KEY, [], policy())
    operator.demand.scaled(KEY, 1)
    operator.demand.scaled(KEY, 0)
    operator.time.passed += 1800
    operator.demand.scaled(KEY, -2)

    assert operator.demand.scaling_input(KEY).changes == (Change(1800.0, -2),)


async def test_rates_are_those_of_the_one_that_leads(operator: Operator) -> None:
    measured = {"meanDemand": 0.5, "meanServiceSeconds": 6.0}
    operator.balancers.says |= {
        "10.0.0.1": numbers() | measured | {"leader": False},
        "10.0.0.2": numbers() | {"meanDemand": 0.4, "meanServiceSeconds": None},
    }
    operator.demand.track(KEY, ["10.0.0.1:9090", "10.0.0.2:9090"])

    await operator.demand.poll()

    sample = operator.demand.scaling_input(KEY).sample
    assert sample is not None
    assert (sample.mean_demand, sample.mean_service_seconds) == (0.4, None)


async def test_a_balancer_that_measures_no_rates_is_read_all_the_same(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.demand.track(KEY, ["10.0.0.1:9090"])

    await operator.demand.poll()

    assert operator.demand.scaling_input(KEY).sample is not None


async def test_an_old_reading_is_no_news(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.demand.track(KEY, ["10.0.0.1:9090"], policy())
    await operator.pass_time(1)
    operator.balancers.says.clear()

    await operator.pass_time(6)

    assert operator.demand.latest(KEY) is None


async def test_who_waits_for_a_turn_keeps_its_numbers_until_then(operator: Operator) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    operator.demand.track(KEY, ["10.0.0.1:9090"], policy=None)
    await operator.demand.poll()

    operator.time.passed += 60
    assert operator.demand.latest(KEY)
    operator.time.passed += 1
    assert operator.demand.latest(KEY) is None


def test_only_ready_balancers_are_asked_and_ipv6_is_bracketed() -> None:
    def pod(host: str, status: str) -> dict[str, object]:
        return {"status": {"podIP": host, "conditions": [{"type": "Ready", "status": status}]}}

    pods = [pod("fd00::7", "True"), pod("10.0.0.2", "False"), pod("10.0.0.1", "True")]

    assert addresses(pods) == ["10.0.0.1:9090", "[fd00::7]:9090"]


async def test_a_silent_balancer_is_asked_ever_more_rarely_until_another_takes_its_place(
    operator: Operator,
) -> None:
    operator.demand.track(KEY, ["10.0.0.1:9090"])
    await operator.pass_time(100)
    of_a_silent_one = operator.balancers.looks

    operator.balancers.says["10.0.0.2"] = numbers(busy=1)
    operator.demand.track(KEY, ["10.0.0.2:9090"])
    await operator.pass_time(1)

    assert of_a_silent_one < 10
    assert operator.demand.latest(KEY) is not None
