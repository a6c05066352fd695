"""The operator's reconcile on a real API server: defaults and managed fields are the real ones."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from apiserver import ApiServer
from llamaservers import raw_server
from operator_harness import KEY, Operator
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.group import BALANCER_FIELD_MANAGER
from slotkeeper.balancer.election.lease import LeaseRecord, Peer, manifest
from slotkeeper.desired.names import Component
from slotkeeper.kube.client import PAGE_SIZE, ApiCluster
from slotkeeper.kube.cluster import Conflict, Kind, Manifest, NotFound
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, EVENTS, LEASES, LLAMA_SERVERS, SERVICES
from slotkeeper.reconcile.write.conflicts import CONFLICT_AFTER, RETRY

SPECS = [
    pytest.param({"gpu": {"count": 0}}, id="cpu"),
    pytest.param({"gpu": {"count": 2, "computeArch": "sm_75"}, "replicas": 3}, id="gpu"),
    pytest.param(
        {
            "gpu": {"count": 0},
            "resources": {
                "requests": {"cpu": "1000m", "memory": "0.5Gi"},
                "limits": {"cpu": 2, "memory": "2048Mi", "ephemeral-storage": "1e9"},
            },
            "autoscaling": {"minReplicas": 2, "maxReplicas": 4},
        },
        id="odd-quantities",
    ),
    pytest.param(
        {
            "workers": {"count": 2, "resources": {"limits": {"memory": "8Gi"}}},
            "gpu": {"count": 1, "minMemory": "15Gi"},
            "replicas": 2,
        },
        id="groups",
    ),
    pytest.param(
        {
            "gpu": {"count": 2, "tensorSplit": [0.9, 1]},
            "chatTemplate": "{{ messages }} $(HOME) $$",
            "extraArgs": ["--top-k", "20", "--override-kv", "a=int:1"],
        },
        id="arguments",
    ),
]


@pytest.fixture
async def cluster(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiCluster]:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
    async with await ApiCluster.connect() as connected:
        yield connected
        await connected.delete(LLAMA_SERVERS, *KEY)
        for kind in CHILDREN:
            for item in (await connected.list(kind, KEY.namespace, LABELS)).items:
                await connected.delete(kind, KEY.namespace, item["metadata"]["name"])


LABELS = {"slotkeeper.dev/server": KEY.name}


def user_applies(api: ApiServer, **spec: Any) -> Manifest:
    answer = api.post(
        "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamaservers",
        raw_server(KEY.name, **spec),
    )
    assert answer.status_code == 201, answer.text
    created: Manifest = answer.json()
    return created


async def versions(cluster: ApiCluster) -> dict[tuple[str, str], str]:
    kinds: tuple[Kind, ...] = (*CHILDREN, LLAMA_SERVERS)
    return {
        (kind.kind, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
        for kind in kinds
        for item in (await cluster.list(kind, KEY.namespace)).items
    }


@pytest.mark.parametrize("spec", SPECS)
async def test_a_second_reconcile_writes_nothing_though_the_api_server_sets_defaults(
    api: ApiServer, cluster: ApiCluster, spec: dict[str, Any]
) -> None:
    user_applies(api, **spec)
    await Operator(cluster).reconcile()
    await Operator(cluster).reconcile()
    requests = CountingCluster(cluster)

    await Operator(requests).reconcile()

    assert requests.writes == []


async def test_the_status_is_taken_as_it_is_said(api: ApiServer, cluster: ApiCluster) -> None:
    user_applies(api, gpu={"count": 0})

    await Operator(cluster).reconcile()

    server = await cluster.get(LLAMA_SERVERS, *KEY)
    assert server is not None
    conditions = {found["type"]: found for found in server["status"]["conditions"]}
    assert set(conditions) == set(ConditionType)
    assert conditions["Ready"]["status"] == "False"
    assert server["status"]["url"] == "http://chat.default.svc:80"
    listed = api.kubectl("get", "llama", KEY.name)
    assert listed.returncode == 0, listed.stderr
    assert "0/0" in listed.stdout
    waited = api.kubectl("wait", "--for=condition=Ready=false", "llama/chat", "--timeout=5s")
    assert waited.returncode == 0, waited.stderr


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
        id="a-field-taken-out",
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
]


@pytest.mark.parametrize(("kind", "name", "patch"), DRIFTS)
async def test_what_somebody_changed_is_put_right(
    api: ApiServer, cluster: ApiCluster, kind: str, name: str, patch: str
) -> None:
    user_applies(api, gpu={"count": 0})
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


async def test_a_field_that_is_no_longer_wanted_goes(api: ApiServer, cluster: ApiCluster) -> None:
    user_applies(api, gpu={"count": 1, "computeArch": "7.5"})
    await Operator(cluster).reconcile()
    patched = api.kubectl(
        "patch", "llama", "chat", "--type=merge", "-p", '{"spec":{"gpu":{"computeArch":null}}}'
    )
    assert patched.returncode == 0, patched.stderr

    await Operator(cluster).reconcile()

    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment is not None
    assert "affinity" not in deployment["spec"]["template"]["spec"]


async def test_a_deleted_child_comes_back(api: ApiServer, cluster: ApiCluster) -> None:
    user_applies(api, gpu={"count": 0})
    await Operator(cluster).reconcile()
    await cluster.delete(SERVICES, KEY.namespace, "chat")

    await Operator(cluster).reconcile()

    service = await cluster.get(SERVICES, KEY.namespace, "chat")
    assert service is not None
    assert service["metadata"]["labels"]["slotkeeper.dev/component"] == Component.BALANCER


DOINGS = [
    pytest.param(
        ("scale", "deployment/chat-replicas", "--replicas=7"),
        "Deployment chat-replicas: spec.replicas changed by kubectl, and put right",
        id="scale",
    ),
    pytest.param(
        (
            *("patch", "deployment", "chat-replicas", "--field-manager=mirror", "-p"),
            '{"spec":{"template":{"spec":{"containers":[{"name":"llama-server","image":"a"}]}}}}',
        ),
        "Deployment chat-replicas: spec.template.spec.containers[llama-server].image changed by "
        "mirror, and put right",
        id="image",
    ),
    pytest.param(
        ("label", "service", "chat", "slotkeeper.dev/server-"),
        "Service chat: metadata.labels[slotkeeper.dev/server] changed or removed, and put right",
        id="label",
    ),
    pytest.param(
        ("delete", "service", "chat"), "Service chat was deleted, and is made again", id="deleted"
    ),
]


@pytest.mark.parametrize(("doing", "message"), DOINGS)
async def test_an_event_says_who_changed_what(
    api: ApiServer, cluster: ApiCluster, doing: tuple[str, ...], message: str
) -> None:
    server = user_applies(api, gpu={"count": 0})
    operator = Operator(cluster)
    await operator.reconcile()
    done = api.kubectl(*doing)
    assert done.returncode == 0, done.stderr

    await operator.reconcile()

    assert await events_of(cluster, server) == [("DriftCorrected", message)]


async def events_of(cluster: ApiCluster, server: Manifest) -> list[tuple[str, str]]:
    uid = server["metadata"]["uid"]
    found = (await cluster.list(EVENTS, KEY.namespace)).items
    return [
        (each["reason"], each["message"])
        for each in found
        if each["type"] == "Warning" and each["involvedObject"].get("uid") == uid
    ]


async def test_a_fight_with_another_field_manager_ends_in_pauses(
    api: ApiServer, cluster: ApiCluster
) -> None:
    server = user_applies(api, gpu={"count": 0})
    operator = Operator(cluster)
    await operator.reconcile()
    patch = ("patch", "deployment", "chat-replicas", "--field-manager=argocd-controller", "-p")

    for _ in range(CONFLICT_AFTER + 1):
        changed = api.kubectl(*patch, '{"spec":{"replicas":7}}')
        assert changed.returncode == 0, changed.stderr
        operator.time.passed += 1
        await operator.reconcile()

    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 7
    said = dict(await events_of(cluster, server))
    assert set(said) == {"DriftCorrected", "FieldConflict"}
    assert "argocd-controller changes spec.replicas again and again" in said["FieldConflict"]
    operator.time.passed += RETRY.first
    assert operator.reconciler.due() == [KEY]
    await operator.reconcile()
    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 1


async def test_what_the_balancers_write_into_their_lease_is_left_alone(
    api: ApiServer, cluster: ApiCluster
) -> None:
    user_applies(api, gpu={"count": 0})
    await Operator(cluster).reconcile()
    made = await cluster.get(LEASES, KEY.namespace, "chat-balancer")
    assert made is not None
    me = Peer("chat-balancer-1", "10.0.0.1:8080", "10.0.0.1:9090")
    taken = manifest(KEY.namespace, "chat-balancer", me, LeaseRecord.read(made), datetime.now(UTC))
    async with await ApiCluster.connect(BALANCER_FIELD_MANAGER) as balancer:
        await balancer.apply(taken)
    requests = CountingCluster(cluster)

    await Operator(requests).reconcile()
    assert requests.writes == []
    # Nor when the operator has to put right what is its own.
    api.kubectl("label", "lease", "chat-balancer", "app.kubernetes.io/name=other", "--overwrite")
    await Operator(requests).reconcile()

    assert "apply" in requests.writes
    lease = await cluster.get(LEASES, KEY.namespace, "chat-balancer")
    assert lease is not None
    assert LeaseRecord.read(lease).holder == me
    assert lease["metadata"]["labels"]["app.kubernetes.io/name"] == "llamaserver"


async def test_what_the_operator_tells_the_balancers_outlives_a_change_of_hands(
    api: ApiServer, cluster: ApiCluster
) -> None:
    user_applies(api, gpu={"count": 0})
    operator = Operator(cluster)
    await operator.reconcile()
    refused(api, {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"})
    await operator.reconcile()
    told = await lease(cluster)
    me = Peer("chat-balancer-1", "10.0.0.1:8080", "10.0.0.1:9090")
    async with await ApiCluster.connect(BALANCER_FIELD_MANAGER) as balancer:
        await balancer.apply(manifest(KEY.namespace, "chat-balancer", me, told, datetime.now(UTC)))
    taken = await lease(cluster)
    refused(api)
    await operator.reconcile()
    forgotten = await lease(cluster)

    assert told.blocker == StartBlocker("FailedCreate", "exceeded quota", permanent=False)
    assert (taken.holder, taken.blocker) == (me, told.blocker)
    assert (forgotten.holder, forgotten.blocker) == (me, None)


def refused(api: ApiServer, *conditions: Manifest) -> None:
    """The controller manager says these conditions of the replicas' Deployment."""
    said = json.dumps({"status": {"conditions": conditions}})
    patched = api.kubectl(
        *("patch", "deployment", "chat-replicas", "--subresource=status"),
        *("--type=merge", "--patch", said),
    )
    assert patched.returncode == 0, patched.stderr


async def lease(cluster: ApiCluster) -> LeaseRecord:
    """What the balancers read in their Lease."""
    found = await cluster.get(LEASES, KEY.namespace, "chat-balancer")
    assert found is not None
    return LeaseRecord.read(found)


LEASE: Manifest = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "guarded", "namespace": "default"},
    "spec": {"holderIdentity": "a"},
}


async def test_a_guarded_apply_is_refused_when_the_object_has_changed(
    cluster: ApiCluster,
) -> None:
    first = await cluster.create(LEASE)
    with pytest.raises(Conflict):
        await cluster.create(LEASE)
    version = {"resourceVersion": first["metadata"]["resourceVersion"]}
    guarded = {**LEASE, "metadata": LEASE["metadata"] | version, "spec": {"holderIdentity": "b"}}
    await cluster.apply(guarded)

    with pytest.raises(Conflict):
        await cluster.apply({**guarded, "spec": {"holderIdentity": "c"}})

    await cluster.delete(LEASES, "default", "guarded")
    await cluster.delete(LEASES, "default", "guarded")


async def test_an_apply_with_the_oldest_version_creates_and_never_changes(
    cluster: ApiCluster,
) -> None:
    lease = {**LEASE, "metadata": LEASE["metadata"] | {"resourceVersion": "1"}}

    created = await cluster.apply(lease)
    with pytest.raises(Conflict):
        await cluster.apply({**lease, "spec": {"holderIdentity": "b"}})

    managers = {entry["operation"] for entry in created["metadata"]["managedFields"]}
    assert managers == {"Apply"}
    await cluster.delete(LEASES, "default", "guarded")


async def test_an_apply_to_a_uid_changes_no_other_object_and_creates_none(
    cluster: ApiCluster,
) -> None:
    other = {"uid": "00000000-0000-4000-8000-000000000000"}
    with pytest.raises(Conflict):
        await cluster.apply({**LEASE, "metadata": LEASE["metadata"] | other})
    created = await cluster.create(LEASE)

    with pytest.raises(Conflict):
        await cluster.apply({**LEASE, "metadata": LEASE["metadata"] | other})
    same = {"uid": created["metadata"]["uid"]}
    await cluster.apply({**LEASE, "metadata": LEASE["metadata"] | same})

    await cluster.delete(LEASES, "default", "guarded")


async def test_a_status_is_not_given_to_another_server_of_the_same_name(
    api: ApiServer, cluster: ApiCluster
) -> None:
    before = user_applies(api, gpu={"count": 0})
    await cluster.delete(LLAMA_SERVERS, *KEY)
    user_applies(api, gpu={"count": 0})

    with pytest.raises(Conflict):
        await cluster.patch_status(before | {"status": {"queued": 1}})


async def test_pages_hold_together_what_a_list_holds(cluster: ApiCluster) -> None:
    for index in range(PAGE_SIZE + 1):
        metadata = {"name": f"page-{index}", "namespace": "default", "labels": {"paged": "yes"}}
        await cluster.create({**LEASE, "metadata": metadata})

    pages = [page async for page in cluster.pages(LEASES, None, {"paged": ""})]

    assert [len(page.items) for page in pages] == [PAGE_SIZE, 1]
    assert len({page.resource_version for page in pages}) == 1
    for page in pages:
        for item in page.items:
            await cluster.delete(LEASES, "default", item["metadata"]["name"])


async def test_a_delete_of_another_uid_is_refused(api: ApiServer, cluster: ApiCluster) -> None:
    user_applies(api, gpu={"count": 0})

    with pytest.raises(Conflict):
        await cluster.delete(LLAMA_SERVERS, *KEY, uid="another")


async def test_a_status_never_brings_a_server_back(cluster: ApiCluster) -> None:
    gone = raw_server(KEY.name) | {"status": {"queued": 1}}
    gone["metadata"]["namespace"] = KEY.namespace

    with pytest.raises(NotFound):
        await cluster.patch_status(gone)


async def test_a_watch_tells_what_happened_since_the_listing(
    api: ApiServer, cluster: ApiCluster
) -> None:
    listing = await cluster.list(LLAMA_SERVERS, KEY.namespace)
    created = user_applies(api, gpu={"count": 0})

    watch = cluster.watch(LLAMA_SERVERS, KEY.namespace, None, listing.resource_version)
    async for event in watch:
        if event.type == "ADDED":
            assert event.object["metadata"]["uid"] == created["metadata"]["uid"]
            break


class CountingCluster:
    """Passes everything on and notes the writes."""

    def __init__(self, cluster: ApiCluster) -> None:
        self.writes: list[str] = []
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        if name in {"apply", "create", "delete", "patch_status"}:
            self.writes.append(name)
        return getattr(self._cluster, name)
