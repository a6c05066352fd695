"""The real KEDA and a real HorizontalPodAutoscaler scale a server by what its balancers say."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from field_watch import FieldWatch
from keda import keda
from load import load
from servers import SLOW, Server, spec
from stack import ROOT, Cluster

SCALED = "scaledobject/by-keda"


@pytest.fixture(scope="module")
def metrics_of_keda(cluster: Cluster) -> Iterator[None]:
    with keda(cluster):
        yield


@pytest.fixture
def scaled(metrics_of_keda: None, server: Server) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """The example's ScaledObject, for this server, with the example's patience shortened."""
    documents = yaml.safe_load_all((ROOT / "examples/keda.yaml").read_text())
    [scaled] = [found for found in documents if found["kind"] == "ScaledObject"]
    asks = scaled["spec"]
    asks["scaleTargetRef"]["name"] = server.name
    [trigger] = asks["triggers"]
    address = trigger["metadata"]["url"]
    own = address.replace("//by-keda.default.", f"//{server.name}.{server.namespace}.")
    assert own != address
    # 80 % of two slots.
    trigger["metadata"] |= {"url": own, "targetValue": "1.6"}
    asks["cooldownPeriod"] = 75
    behavior = asks["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behavior["scaleDown"]["stabilizationWindowSeconds"] = 15
    yield scaled
    # Before its namespace goes: its finalizer is KEDA's to take away.
    server.kubectl("delete", "--ignore-not-found", SCALED, "--timeout=60s")


@pytest.mark.long
def test_keda_scales_a_server_to_three_and_back_and_from_zero(
    server: Server, scaled: dict[str, Any]
) -> None:
    # Of the two balancers KEDA meets either.
    server.ready(spec(SLOW, balancer={"replicas": 2}))
    resource = f"llamaserver/{server.name}"
    namespace = server.namespace

    with (
        FieldWatch(server.cluster, resource, "{.spec.replicas}", namespace=namespace) as wanted,
        FieldWatch(
            server.cluster, resource, "{.status.readyReplicas}", namespace=namespace
        ) as ready,
    ):
        server.cluster.apply(scaled, namespace=namespace)
        assert wanted.comes_to("0", 60), wanted.seen
        with load(server, clients=12, tokens=400) as burst:
            assert ready.comes_to("3", 180), (wanted.seen, ready.seen)
            [found] = server.cluster.get("hpa", namespace=namespace)["items"]
        assert wanted.comes_to("1", 90), wanted.seen
        assert wanted.comes_to("0", 150), wanted.seen
        [ending] = server.chat()

    assert burst.failed == []
    assert burst.deferred == 0
    assert ending["answered"], ending
    assert up(wanted.seen) == ["1", "0", "1", "3"], wanted.seen
    assert wanted.seen[-1] == "1"
    assert found["spec"]["scaleTargetRef"]["kind"] == "LlamaServer"
    assert reason(found, "ScalingActive") == "ValidMetricFound"
    assert server.get()["status"]["scaling"]["reason"] == "Manual"


def up(values: list[str]) -> list[str]:
    """What the values are up to the first 3, but for 2, through which the way may lead."""
    return [value for value in values[: values.index("3") + 1] if value != "2"]


def reason(hpa: dict[str, Any], kind: str) -> str:
    conditions: list[dict[str, str]] = hpa["status"]["conditions"]
    return next(condition["reason"] for condition in conditions if condition["type"] == kind)
