"""Other scalers in docs/external-scalers.md and the examples use metrics that balancers report."""

import json
import re
from typing import Any

import pytest
import yaml

from balancer_harness import run_balancer
from llamaservers import EXAMPLES, ROOT, parsed
from raw_http import RawClient, get
from slotkeeper.api import demand_report
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS
from slotkeeper.scheduling import Dispatcher, QueueLimits

BLOCKS = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs/external-scalers.md").read_text(), re.DOTALL
)
MONITOR, RULES = map(yaml.safe_load, BLOCKS)


def example(name: str) -> tuple[Any, Any]:
    """The server of an example, and its scaler."""
    server, scaler = yaml.safe_load_all((EXAMPLES / name).read_text())
    return parsed(server), scaler


@pytest.mark.parametrize("name", ["keda.yaml", "horizontal-pod-autoscaler.yaml"])
def test_only_the_scaler_sets_the_number_of_replicas(name: str) -> None:
    server, scaler = example(name)

    assert server.spec.autoscaling is None
    assert "replicas" not in server.spec.model_fields_set
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": "slotkeeper.dev/v1alpha1",
        "kind": "LlamaServer",
        "name": server.name,
    }


async def test_keda_polls_an_integer_that_the_servers_service_reports() -> None:
    server, scaler = example("keda.yaml")
    [trigger] = scaler["spec"]["triggers"]
    metadata = trigger["metadata"]

    async with run_balancer() as balancer, await RawClient.connect(balancer.metrics_port) as client:
        report = json.loads((await client.request(get(demand_report.PATH))).body)

    host = f"{names.client_service(server)}.{server.namespace}.svc:{names.METRICS_PORT}"
    assert metadata["url"] == f"http://{host}{demand_report.PATH}"
    assert isinstance(report[metadata["valueLocation"]], int)
    assert float(metadata["targetValue"]) == pytest.approx(0.8 * server.spec.slots)
    # Otherwise a peak could end between two polls.
    assert scaler["spec"]["pollingInterval"] <= PEAK_WINDOW_SECONDS


def test_the_adapters_rule_sums_the_series_of_the_demand() -> None:
    dispatcher: Dispatcher[Any] = Dispatcher(QueueLimits())
    text = Metrics(dispatcher).text().decode()
    series = set(re.findall(r"^# TYPE (\S+) gauge", text, re.MULTILINE))
    [rule] = RULES["externalRules"]
    added, subtracted = rule["metricsQuery"].split(" - ")

    summed, without = (
        # Prometheus' expressions match whole names.
        {name for name in series if re.fullmatch(re.findall(r'__name__=~"(.*?)"', each)[0], name)}
        for each in (added, subtracted)
    )

    assert summed == {
        "slotkeeper_balancer_slots_busy",
        "slotkeeper_balancer_queued_requests",
        "slotkeeper_balancer_further_tasks",
    }
    assert without == {
        "slotkeeper_balancer_preemptible_slots_busy",
        "slotkeeper_balancer_preemptible_queued_requests",
    }
    assert rule["seriesQuery"].partition("{")[0] in summed


def test_the_autoscaler_uses_the_adapters_metric() -> None:
    server, scaler = example("horizontal-pod-autoscaler.yaml")
    [metric] = scaler["spec"]["metrics"]
    [rule] = RULES["externalRules"]
    [label] = MONITOR["spec"]["podTargetLabels"]

    external = metric["external"]["metric"]

    assert external["name"] == rule["name"]["as"]
    # Prometheus replaces other characters in labels.
    label_name = re.sub(r"\W", "_", label)
    assert external["selector"]["matchLabels"] == {label_name: server.name}
    assert label_name in rule["seriesQuery"]
    assert metric["external"]["target"]["averageValue"] == f"{800 * server.spec.slots}m"


def test_the_pod_monitor_selects_balancers_and_their_port() -> None:
    server, _ = example("horizontal-pod-autoscaler.yaml")
    labels = names.labels(server, Component.BALANCER)

    assert MONITOR["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert set(MONITOR["spec"]["podTargetLabels"]) <= labels.keys()
    [endpoint] = MONITOR["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == names.METRICS
