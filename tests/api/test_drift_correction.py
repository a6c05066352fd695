"""Drift of a server's children on a real API server: correction, events and field conflicts."""

from typing import Any

import pytest

from apiserver import ApiServer
from llamaservers import parsed, raw_server
from operator_harness import KEY, Operator
from real_api_harness import create_server
from slotkeeper.desired import prefetch
from slotkeeper.desired.names import Component
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, EVENTS, SERVICES
from slotkeeper.reconcile.write.conflicts import CONFLICT_AFTER, RETRY

MODEL = {"url": "https://example.com/model.gguf", "cache": {"claimName": "models"}}
PREFETCH_JOB = prefetch.name(parsed(raw_server(model=MODEL)))

DRIFTS = [
    pytest.param("deployment", "chat-replicas", '{"spec":{"replicas":7}}', id="replicas"),
    pytest.param(
        "service",
        "chat",
        '{"spec":{"selector":{"slotkeeper.dev/component":"nothing"}}}',
        id="selector",
    ),
    pytest.param("role", "chat-balancer", '{"rules":[]}', id="rules"),
    pytest.param("networkpolicy", "chat-replicas", '{"spec":{"ingress":[]}}', id="network policy"),
    pytest.param(
        "deployment",
        "chat-balancer",
        '{"spec":{"template":{"spec":{"automountServiceAccountToken":null}}}}',
        id="removed-field",
    ),
    pytest.param(
        "deployment",
        "chat-replicas",
        '{"spec":{"template":{"spec":{"containers":[{"name":"llama-server","image":"evil"}]}}}}',
        id="image",
    ),
    pytest.param(
        "serviceaccount",
        "chat-balancer",
        '{"metadata":{"labels":{"slotkeeper.dev/server":null}}}',
        id="label",
    ),
    pytest.param("job", PREFETCH_JOB, '{"spec":{"parallelism":0,"backoffLimit":9}}', id="job"),
]


@pytest.mark.parametrize(("kind", "name", "patch"), DRIFTS)
async def test_a_changed_child_is_corrected(
    api: ApiServer, cluster: ApiCluster, kind: str, name: str, patch: str
) -> None:
    create_server(api, gpu={"count": 0}, model={**MODEL, "prefetch": True}, replicas=0)
    await Operator(cluster).reconcile()
    before = await specs(cluster)
    changed = api.kubectl("patch", kind, name, "--type=strategic", "-p", patch)
    assert changed.returncode == 0, changed.stderr
    assert await specs(cluster) != before

    await Operator(cluster).reconcile()

    assert await specs(cluster) == before


async def specs(cluster: ApiCluster) -> dict[tuple[str, str], Any]:
    ignored = {"metadata", "status"}
    return {
        (kind.kind, item["metadata"]["name"]): (
            {key: value for key, value in item.items() if key not in ignored},
            item["metadata"]["labels"],
        )
        for kind in CHILDREN
        for item in (await cluster.list(kind, KEY.namespace, None)).items
        if "ownerReferences" in item["metadata"]
    }


async def test_a_deleted_child_is_recreated(api: ApiServer, cluster: ApiCluster) -> None:
    create_server(api, gpu={"count": 0})
    await Operator(cluster).reconcile()
    await cluster.delete(SERVICES, KEY.namespace, "chat")

    await Operator(cluster).reconcile()

    service = await cluster.get(SERVICES, KEY.namespace, "chat")
    assert service is not None
    assert service["metadata"]["labels"]["slotkeeper.dev/component"] == Component.BALANCER


CHANGES = [
    pytest.param(
        ("scale", "deployment/chat-replicas", "--replicas=7"),
        "Deployment chat-replicas: spec.replicas changed by kubectl; corrected",
        id="scale",
    ),
    pytest.param(
        (
            *("patch", "deployment", "chat-replicas", "--field-manager=mirror", "-p"),
            '{"spec":{"template":{"spec":{"containers":[{"name":"llama-server","image":"a"}]}}}}',
        ),
        "Deployment chat-replicas: spec.template.spec.containers[llama-server].image changed by "
        "mirror; corrected",
        id="image",
    ),
    pytest.param(
        ("label", "service", "chat", "slotkeeper.dev/server-"),
        "Service chat: metadata.labels[slotkeeper.dev/server] changed or removed; corrected",
        id="label",
    ),
    pytest.param(
        ("delete", "service", "chat"), "Service chat was deleted; created again", id="deleted"
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
async def test_an_event_names_the_field_manager_and_the_field(
    api: ApiServer, cluster: ApiCluster, change: tuple[str, ...], message: str
) -> None:
    server = create_server(api, gpu={"count": 0})
    operator = Operator(cluster)
    await operator.reconcile()
    changed = api.kubectl(*change)
    assert changed.returncode == 0, changed.stderr

    await operator.reconcile()

    assert await events_of(cluster, server) == [("DriftCorrected", message)]


async def events_of(cluster: ApiCluster, server: Manifest) -> list[tuple[str, str]]:
    uid = server["metadata"]["uid"]
    events = (await cluster.list(EVENTS, KEY.namespace)).items
    return [
        (each["reason"], each["message"])
        for each in events
        if each["type"] == "Warning" and each["involvedObject"].get("uid") == uid
    ]


async def test_corrections_back_off_in_a_field_conflict(
    api: ApiServer, cluster: ApiCluster
) -> None:
    server = create_server(api, gpu={"count": 0})
    operator = Operator(cluster)
    await operator.reconcile()
    patch = ("patch", "deployment", "chat-replicas", "--field-manager=argocd-controller", "-p")

    for _ in range(CONFLICT_AFTER + 1):
        changed = api.kubectl(*patch, '{"spec":{"replicas":7}}')
        assert changed.returncode == 0, changed.stderr
        operator.time.elapsed += 1
        await operator.reconcile()

    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 7
    events = dict(await events_of(cluster, server))
    assert set(events) == {"DriftCorrected", "FieldConflict"}
    assert "argocd-controller repeatedly changes spec.replicas" in events["FieldConflict"]
    operator.time.elapsed += RETRY.first
    assert operator.reconciler.is_due(KEY)
    await operator.reconcile()
    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 1
