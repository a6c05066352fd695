"""An unexpected error of one server is logged and counted, and no other server notices it."""

import logging
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    demand_report,
    deploy,
    server_status,
)
from slotkeeper.kube.cluster import WatchEvent
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.isolation import Isolation

OTHER = Key("default", "other")
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 3}


def suppressed(operator: Operator, part: str) -> float | None:
    name = "slotkeeper_operator_suppressed_errors_total"
    return operator.registry.get_sample_value(name, {"part": part})


class Broken:
    """Raises whatever is done with it, as no known value does."""

    def __getattr__(self, name: str) -> Any:
        raise RecursionError(name)


def test_the_same_error_is_logged_once_and_counted_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    isolation, counted = Isolation("poll"), list[str]()
    isolation.on_error = counted.append

    for subject in ("a", "a", "b"):
        with isolation(subject):
            raise KeyError("name")

    assert counted == ["poll"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "a: unexpected error in poll",
        "b: unexpected error in poll",
    ]


def test_what_ends_the_process_is_not_suppressed() -> None:
    with pytest.raises(KeyboardInterrupt), Isolation("poll")("a"):
        raise KeyboardInterrupt


async def test_a_server_whose_record_is_broken_delays_no_other(
    cluster: FakeCluster, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    await deploy(cluster, operator, autoscaling=AUTOSCALING)
    apply_server(cluster, "other", autoscaling=AUTOSCALING)
    await operator.reconcile(OTHER)
    operator.states[OTHER].conflicts = Broken()  # type: ignore[assignment]
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=9)

    with caplog.at_level(logging.ERROR):
        await operator.runtime.poll_demand()
        operator.states[OTHER].demand = Broken()  # type: ignore[assignment]
        snapshots = operator.reconciler.scaling_snapshots()

    assert [key for key, _ in snapshots] == [KEY]
    assert suppressed(operator, "check between passes") == 2
    assert "default/other" in caplog.text


async def test_a_poll_that_fails_in_an_unknown_way_delays_no_other(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, autoscaling=AUTOSCALING)
    operator.balancers.reports[BALANCER_HOST] = {"leader": Broken}

    await operator.run_for(1)

    # json.dumps of the fake balancer raises TypeError, which is neither OSError nor ValueError.
    assert suppressed(operator, "poll of demand") == 1
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=9)
    await operator.run_for(5)
    assert server_status(cluster)["scaling"]["desiredReplicas"] == 3


def test_an_event_without_metadata_ends_nothing(operator: Operator) -> None:
    operator.runtime.on_server_event(WatchEvent("ADDED", {"kind": "LlamaServer"}))

    assert suppressed(operator, "watch") == 1
