"""The operator's reconcile on a real API server, with its defaults and managed fields."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from apiserver import ApiServer
from operator_harness import KEY, Operator
from real_api_harness import CountingCluster, create_server
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.conditions import ALWAYS
from slotkeeper.api.group import (
    ACCESS_RULES_ANNOTATION,
    BALANCER_FIELD_MANAGER,
    START_BLOCKER_ANNOTATION,
)
from slotkeeper.balancer.election.lease import LeaseRecord, manifest
from slotkeeper.desired import names
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, LEASES, LLAMA_SERVERS, ROLES, SERVICE_ACCOUNTS

REPLICA_SET = "chat-replicas-5d7f"

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
            "extraArgs": ["--mirostat", "2", "--override-kv", "a=int:1"],
        },
        id="arguments",
    ),
]


@pytest.mark.parametrize("spec", SPECS)
async def test_a_second_reconcile_writes_nothing_despite_the_api_servers_defaults(
    api: ApiServer, cluster: ApiCluster, spec: dict[str, Any]
) -> None:
    create_server(api, **spec)
    await Operator(cluster).reconcile()
    await Operator(cluster).reconcile()
    requests = CountingCluster(cluster)

    await Operator(requests).reconcile()

    assert requests.writes == []


async def test_the_api_server_stores_the_status(api: ApiServer, cluster: ApiCluster) -> None:
    create_server(api, gpu={"count": 0})

    await Operator(cluster).reconcile()

    server = await cluster.get(LLAMA_SERVERS, *KEY)
    assert server is not None
    conditions = {each["type"]: each for each in server["status"]["conditions"]}
    assert set(conditions) == set(ALWAYS)
    assert conditions["Ready"]["status"] == "False"
    assert server["status"]["url"] == "http://chat.default.svc"
    listed = api.kubectl("get", "llama", KEY.name)
    assert listed.returncode == 0, listed.stderr
    assert "0/0" in listed.stdout
    waited = api.kubectl("wait", "--for=condition=Ready=false", "llama/chat", "--timeout=5s")
    assert waited.returncode == 0, waited.stderr


async def test_a_field_that_is_no_longer_desired_is_removed(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 1, "computeArch": "7.5"})
    await Operator(cluster).reconcile()
    patched = api.kubectl(
        "patch", "llama", "chat", "--type=merge", "-p", '{"spec":{"gpu":{"computeArch":null}}}'
    )
    assert patched.returncode == 0, patched.stderr

    await Operator(cluster).reconcile()

    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment is not None
    assert "affinity" not in deployment["spec"]["template"]["spec"]


async def test_fields_that_balancers_write_to_their_lease_are_kept(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 0})
    await Operator(cluster).reconcile()
    created = await cluster.get(LEASES, KEY.namespace, "chat-balancer")
    assert created is not None
    record = LeaseRecord.read(created)
    me = "chat-balancer-1"
    async with await ApiCluster.connect(BALANCER_FIELD_MANAGER) as balancer:
        await balancer.apply(
            manifest(KEY.namespace, "chat-balancer", me, record, datetime.now(UTC))
        )
    requests = CountingCluster(cluster)

    await Operator(requests).reconcile()
    assert requests.writes == []
    # They are also kept when the operator corrects drift of its own fields.
    api.kubectl("label", "lease", "chat-balancer", "app.kubernetes.io/name=other", "--overwrite")
    await Operator(requests).reconcile()

    assert "apply" in requests.writes
    lease = await cluster.get(LEASES, KEY.namespace, "chat-balancer")
    assert lease is not None
    assert LeaseRecord.read(lease).holder == me
    assert lease["metadata"]["labels"]["app.kubernetes.io/name"] == "llamaserver"


async def test_the_role_has_the_access_rules_and_the_start_blocker(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 0}, balancer={"apiKeys": {"secretName": "chat-keys"}})
    operator = Operator(cluster)
    await operator.reconcile()
    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-replicas")
    assert deployment
    create_replica_set(api, deployment)
    set_conditions(api, {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"})
    await operator.reconcile()
    blocked = await role_annotations(cluster)
    set_conditions(api)
    await operator.reconcile()
    unblocked = await role_annotations(cluster)

    blocker = StartBlocker.from_annotation(blocked[START_BLOCKER_ANNOTATION])
    assert blocker == StartBlocker("FailedCreate", "exceeded quota", permanent=False)
    assert START_BLOCKER_ANNOTATION not in unblocked
    for each in (blocked, unblocked):
        rules = AccessRules.from_annotation(each[ACCESS_RULES_ANNOTATION])
        assert rules.api_keys_secret == "chat-keys"


async def test_a_recreated_service_account_replaces_the_balancers(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 0})
    operator = Operator(cluster)
    await operator.reconcile()
    first = await account_uids(cluster)
    api.kubectl("delete", "serviceaccount", "chat-balancer")
    await operator.reconcile()
    second = await account_uids(cluster)

    assert first[0] == first[1] != second[0] == second[1]


async def test_a_balancer_may_read_its_own_role_and_no_other(
    api: ApiServer, cluster: ApiCluster
) -> None:
    create_server(api, gpu={"count": 0})
    await Operator(cluster).reconcile()

    def may(verb: str, resource: str) -> bool:
        account = f"--as=system:serviceaccount:{KEY.namespace}:chat-balancer"
        result = api.kubectl("auth", "can-i", verb, resource, account)
        return result.stdout.strip() == "yes"

    for verb in ("get", "list", "watch"):
        assert may(verb, "roles/chat-balancer")
        assert not may(verb, "roles/other")
    assert may("patch", "leases/chat-balancer")
    for resource in ("roles/chat-balancer", "endpointslices", "leases/other", "pods", "secrets"):
        assert not may("patch", resource)
    assert not may("get", "secrets")


async def account_uids(cluster: ApiCluster) -> tuple[str, str]:
    """The uid of the balancers' ServiceAccount, and that in their pods' template."""
    account = await cluster.get(SERVICE_ACCOUNTS, KEY.namespace, "chat-balancer")
    deployment = await cluster.get(DEPLOYMENTS, KEY.namespace, "chat-balancer")
    assert account
    assert deployment
    template = deployment["spec"]["template"]["metadata"]["annotations"]
    return account["metadata"]["uid"], template[names.ACCOUNT_UID_ANNOTATION]


async def role_annotations(cluster: ApiCluster) -> dict[str, str]:
    """The annotations of the balancers' Role."""
    role = await cluster.get(ROLES, KEY.namespace, "chat-balancer")
    assert role
    annotations: dict[str, str] = role["metadata"]["annotations"]
    return annotations


def create_replica_set(api: ApiServer, deployment: Manifest) -> None:
    """Create the ReplicaSet of the Deployment's template, as the controller manager does."""
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    labels = template["metadata"]["labels"] | {"pod-template-hash": "5d7f"}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
    owner |= {key: metadata[key] for key in ("name", "uid")}
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": REPLICA_SET, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": template | {"metadata": template["metadata"] | {"labels": labels}},
        },
    }
    path = "/apis/apps/v1/namespaces/default/replicasets"
    response = api.post(path, replica_set)
    assert response.status_code == 201, response.text


def set_conditions(api: ApiServer, *conditions: Manifest) -> None:
    """Set conditions of the replicas' ReplicaSet, as the controller manager does."""
    status = json.dumps({"status": {"replicas": 0, "conditions": conditions}})
    patched = api.kubectl(
        *("patch", "replicaset", REPLICA_SET, "--subresource=status"),
        *("--type=merge", "--patch", status),
    )
    assert patched.returncode == 0, patched.stderr
