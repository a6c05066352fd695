"""The real KEDA and a real HorizontalPodAutoscaler scale a server by its balancers' metrics."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from addons import installed
from field_watch import FieldWatch
from keda import KEDA
from load import load
from servers import SLOW, Server, spec
from stack import ROOT, Cluster

SCALED_OBJECT = "scaledobject/by-keda"


@pytest.fixture(scope="module")
def keda_metrics(cluster: Cluster) -> Iterator[None]:
    with installed(cluster, KEDA):
        yield


@pytest.fixture
def scaled_object(keda_metrics: None, server: Server) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """The example's ScaledObject, for this server and with shorter periods."""
    documents = yaml.safe_load_all((ROOT / "examples/keda.yaml").read_text())
    [scaled_object] = [each for each in documents if each["kind"] == "ScaledObject"]
    spec = scaled_object["spec"]
    spec["scaleTargetRef"]["name"] = server.name
    [trigger] = spec["triggers"]
    example_url = trigger["metadata"]["url"]
    url = example_url.replace("//by-keda.default.", f"//{server.name}.{server.namespace}.")
    assert url != example_url
    # 80 % of two slots.
    trigger["metadata"] |= {"url": url, "targetValue": "1.6"}
    spec["cooldownPeriod"] = 75
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behavior["scaleDown"]["stabilizationWindowSeconds"] = 15
    yield scaled_object
    # Before its namespace is deleted: KEDA has to remove its finalizer.
    server.kubectl("delete", "--ignore-not-found", SCALED_OBJECT, "--timeout=60s")


@pytest.mark.long
def test_keda_scales_a_server_to_three_and_back_and_from_zero(
    server: Server, scaled_object: dict[str, Any]
) -> None:
    # With two balancers, KEDA's requests reach either of them.
    server.ready(spec(SLOW, balancer={"replicas": 2}))
    resource = f"llamaserver/{server.name}"
    namespace = server.namespace

    with (
        FieldWatch(server.cluster, resource, "{.spec.replicas}", namespace=namespace) as desired,
        FieldWatch(
            server.cluster, resource, "{.status.readyReplicas}", namespace=namespace
        ) as ready,
    ):
        server.cluster.apply(scaled_object, namespace=namespace)
        assert desired.wait_for_value("0", 60), desired.values
        with load(server, clients=12, tokens=400) as burst:
            assert ready.wait_for_value("3", 180), (desired.values, ready.values)
            [hpa] = server.cluster.get("hpa", namespace=namespace)["items"]
        assert desired.wait_for_value("1", 90), desired.values
        assert desired.wait_for_value("0", 150), desired.values
        [result] = server.chat()

    assert burst.failed == []
    assert burst.deferred == 0
    assert result["completed"], result
    assert until_three(desired.values) == ["1", "0", "1", "3"], desired.values
    assert desired.values[-1] == "1"
    assert hpa["spec"]["scaleTargetRef"]["kind"] == "LlamaServer"
    assert reason(hpa, "ScalingActive") == "ValidMetricFound"
    assert server.get()["status"]["scaling"]["reason"] == "Manual"


def until_three(values: list[str]) -> list[str]:
    """Return the values up to the first 3, without 2, which is an optional intermediate value."""
    return [value for value in values[: values.index("3") + 1] if value != "2"]


def reason(hpa: dict[str, Any], kind: str) -> str:
    conditions: list[dict[str, str]] = hpa["status"]["conditions"]
    return next(condition["reason"] for condition in conditions if condition["type"] == kind)
