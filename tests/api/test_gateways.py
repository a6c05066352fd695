"""LlamaGateways, reconciled on a real API server."""

import json
from typing import Any

import pytest

from apiserver import ApiServer
from gateway_harness import GATEWAY
from operator_harness import KEY, Operator
from real_api_harness import CountingCluster, create_gateway, create_server
from slotkeeper.desired import names
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import EVENTS, GATEWAY_CHILDREN, LLAMA_GATEWAYS, SERVICES

PATH = "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamagateways"

DRIFTS = [
    pytest.param("deployment", "llm-gateway", '{"spec":{"replicas":7}}', id="replicas"),
    pytest.param("service", "llm", '{"spec":{"selector":{"a":"b"}}}', id="selector"),
    pytest.param("role", "llm-gateway", '{"rules":[]}', id="rules"),
    pytest.param("networkpolicy", "llm-gateway", '{"spec":{"ingress":[]}}', id="network policy"),
    pytest.param(
        "deployment",
        "llm-gateway",
        '{"spec":{"template":{"spec":{"containers":[{"name":"gateway","image":"evil"}]}}}}',
        id="image",
    ),
    pytest.param(
        "serviceaccount",
        "llm-gateway",
        '{"metadata":{"labels":{"slotkeeper.dev/gateway":null}}}',
        id="label",
    ),
]


async def children(cluster: ApiCluster) -> dict[tuple[str, str], Any]:
    ignored = {"metadata", "status"}
    return {
        (kind.kind, item["metadata"]["name"]): (
            {key: value for key, value in item.items() if key not in ignored},
            item["metadata"]["labels"],
        )
        for kind in GATEWAY_CHILDREN
        for item in (await cluster.list(kind, GATEWAY.namespace, None)).items
        if any(
            owner["kind"] == LLAMA_GATEWAYS.kind
            for owner in item["metadata"].get("ownerReferences", ())
        )
    }


async def status(cluster: ApiCluster) -> Any:
    found = await cluster.get(LLAMA_GATEWAYS, *GATEWAY)
    assert found is not None
    return found["status"]


async def test_a_gateway_gets_its_children_and_its_status(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 0})
    batches = {"storage": {"size": "1Gi"}}
    create_gateway(api, defaultModel="chat", tls={"secretName": "cert"}, batches=batches)
    operator = Operator(cluster)

    await operator.reconcile()
    await operator.reconcile_gateways()

    assert {kind for kind, _ in await children(cluster)} == {kind.kind for kind in GATEWAY_CHILDREN}
    found = await status(cluster)
    assert found["url"] == "https://llm.default.svc"
    assert [(each["name"], each["server"]) for each in found["models"]] == [("chat", "chat")]
    assert {each["type"]: each["status"] for each in found["conditions"]} == {
        "Ready": "False",
        "Degraded": "False",
    }


async def test_a_second_pass_writes_nothing(api: ApiServer, cluster: ApiCluster) -> None:
    create_gateway(
        api,
        apiKeys={"secretRef": {"name": "keys"}},
        service={"type": "LoadBalancer", "annotations": {"example.com/a": "b"}},
        resources={"requests": {"cpu": "1000m"}, "limits": {"memory": "1.5Gi"}},
        placement={"tolerations": [{"key": "a", "operator": "Exists"}]},
        batches={"storage": {"size": "1024Mi", "storageClassName": "fast"}, "concurrency": 3},
    )
    await Operator(cluster).reconcile_gateways()
    counting = CountingCluster(cluster)

    await Operator(counting).reconcile_gateways()

    assert counting.writes == []


@pytest.mark.parametrize(("kind", "name", "patch"), DRIFTS)
async def test_a_changed_child_is_corrected(
    api: ApiServer, cluster: ApiCluster, kind: str, name: str, patch: str
) -> None:
    create_gateway(api)
    await Operator(cluster).reconcile_gateways()
    before = await children(cluster)
    changed = api.kubectl("patch", kind, name, "--type=strategic", "-p", patch)
    assert changed.returncode == 0, changed.stderr
    assert await children(cluster) != before

    await Operator(cluster).reconcile_gateways()

    assert await children(cluster) == before


async def test_a_deleted_child_is_created_again_with_an_event(
    api: ApiServer, cluster: ApiCluster
) -> None:
    gateway = create_gateway(api)
    operator = Operator(cluster)
    await operator.reconcile_gateways()
    await cluster.delete(SERVICES, *GATEWAY)

    await operator.reconcile_gateways()

    assert await cluster.get(SERVICES, *GATEWAY) is not None
    assert "Service llm was deleted; created again" in await events_of(cluster, gateway)


async def events_of(cluster: ApiCluster, gateway: Manifest) -> list[str]:
    uid = gateway["metadata"]["uid"]
    return [
        each["message"]
        for each in (await cluster.list(EVENTS, GATEWAY.namespace)).items
        if each["involvedObject"].get("uid") == uid
    ]


async def test_setting_and_removing_tls_changes_the_service(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_gateway(api, tls={"secretName": "cert"})
    await Operator(cluster).reconcile_gateways()
    removed = api.kubectl(
        "patch", "llamagw", "llm", "--type=json", "-p", '[{"op":"remove","path":"/spec/tls"}]'
    )
    assert removed.returncode == 0, removed.stderr

    await Operator(cluster).reconcile_gateways()

    service = await cluster.get(SERVICES, *GATEWAY)
    assert service
    assert [port["port"] for port in service["spec"]["ports"]] == [
        names.CLIENT_PORT,
        names.METRICS_PORT,
    ]
    assert (await status(cluster))["url"] == "http://llm.default.svc"


async def test_a_server_with_the_gateway_s_name_keeps_its_service(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 0})
    await Operator(cluster).reconcile()
    before = await cluster.get(SERVICES, *KEY)
    body = json.dumps(
        {
            "apiVersion": "slotkeeper.dev/v1alpha1",
            "kind": "LlamaGateway",
            "metadata": {"name": KEY.name},
            "spec": {},
        }
    )
    assert api.kubectl("apply", "-f", "-", stdin=body).returncode == 0
    try:
        with pytest.raises(Exception, match="Service chat exists and is owned by LlamaServer"):
            await Operator(cluster).reconcile_gateways()
    finally:
        await cluster.delete(LLAMA_GATEWAYS, *KEY)

    assert await cluster.get(SERVICES, *KEY) == before


def test_kubectl_get_prints_the_columns(api: ApiServer, cluster: ApiCluster) -> None:  # noqa: ARG001
    create_gateway(api)
    conditions = [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "2/2 gateway pods available",
            "lastTransitionTime": "2026-11-22T10:00:00Z",
            "observedGeneration": 1,
        }
    ]
    patched = api.client.patch(
        f"{PATH}/llm/status",
        params={"fieldValidation": "Strict"},
        headers={"Content-Type": "application/merge-patch+json"},
        content=json.dumps(
            {
                "status": {
                    "conditions": conditions,
                    "modelsReady": "1/2",
                    "url": "http://llm.default.svc",
                    "readyReplicas": 2,
                    "budget": {"used": "1 GPU", "limit": "2 GPUs", "history": []},
                }
            }
        ),
    )
    assert patched.status_code == 200, patched.text

    header, row = api.kubectl("get", "llamagw", "llm").stdout.splitlines()
    wide = api.kubectl("get", "llamagw", "llm", "--output=wide").stdout.splitlines()

    assert header.split() == ["NAME", "READY", "MODELS", "URL", "AGE"]
    assert row.split()[:4] == ["llm", "True", "1/2", "http://llm.default.svc"]
    assert wide[1].split()[5:] == ["Serving", "2"]


def test_kubectl_explains_each_field(api: ApiServer) -> None:
    done = api.kubectl("explain", "llamagateway.spec.apiKeys.limitsByKey")

    assert done.returncode == 0, done.stderr
    assert "They replace limits." in " ".join(done.stdout.split())
