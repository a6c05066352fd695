"""The operator needs each permission that the chart grants, and no other."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from bench.reconcile import audit_log
from llamagateways import raw_gateway
from llamaservers import raw_server
from operator_process import (
    NAMESPACE as OWN_NAMESPACE,
)
from operator_process import (
    RBAC,
    create,
    eventually,
    get,
    lease_holder,
    operator_kubeconfig,
    operator_process,
    rbac_manifests,
)
from slotkeeper.desired import names
from slotkeeper.kube.kinds import CHILDREN, GATEWAY_CHILDREN, LEASES

Permission = tuple[str, str]
"""A resource and a verb."""

NAMESPACE = "permissions"
KINDS = ",".join(kind.plural for kind in CHILDREN)

NOT_IN_AUDIT_LOG: Mapping[Permission, str] = {
    **{
        (kind.plural, "create"): "in the audit log an apply that creates an object is a patch"
        for kind in {*CHILDREN, *GATEWAY_CHILDREN}
        if kind != LEASES  # the operator's own Lease is created with a create
    },
    ("pods", "patch"): "used for a scale-down, with metrics of balancers, which do not run here",
    ("llamaservers/finalizers", "update"): "required by OwnerReferencesPermissionEnforcement",
    ("llamagateways/finalizers", "update"): "required by OwnerReferencesPermissionEnforcement",
    **{
        ("endpointslices", verb): "granted to the balancers by their Role"
        for verb in ("get", "list", "watch")
    },
}
"""Permissions that are needed without a request of the operator, and the reason."""


def granted() -> set[Permission]:
    """Return all permissions in the chart's files."""
    rules = [rule for file in RBAC.glob("*.yaml") for rule in yaml.safe_load(file.read_text())]
    return {right for rule in rules for right in product(rule["resources"], rule["verbs"])}


@pytest.fixture(scope="module", params=["all namespaces", "one namespace"])
def requests(
    request: pytest.FixtureRequest, api: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[audit_log.Request]]:
    """All API requests while an operator used every permission that it can use."""
    began, folder = datetime.now(UTC), tmp_path_factory.mktemp("operator")
    one_namespace = request.param == "one namespace"
    create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    manifests = rbac_manifests(namespace=NAMESPACE if one_namespace else "")
    create(api, *manifests)
    api.kubectl("delete", "lease", "--all", "-n", OWN_NAMESPACE)
    arguments = ("--namespace", NAMESPACE) if one_namespace else ()
    with operator_process(operator_kubeconfig(api, folder), folder / "log", *arguments):
        eventually(lambda: lease_holder(api))
        use_all_permissions(api)
    yield list(audit_log.requests(api.audit_log, began))
    api.kubectl("delete", "llama,llamagw", "--all", "-n", NAMESPACE)
    for label in (names.SERVER_LABEL, names.GATEWAY_LABEL):
        api.kubectl("delete", f"{KINDS},replicasets,pods", "-l", label, "-n", NAMESPACE)
    for manifest in manifests[2:]:
        api.kubectl("delete", "-f", "-", stdin=yaml.safe_dump(manifest))


def use_all_permissions(api: ApiServer) -> None:
    """Make the operator create children, find unlabelled ones, delete some, and list nodes."""
    gpu = {"count": 1, "computeArch": "9.0"}
    create(api, server("plain", gpu=gpu), server("group", gpu=gpu, workers={"count": 1}))
    model = {"url": "https://example.com/model.gguf", "cache": {"claimName": "models"}}
    create(api, server("zero", model=model, autoscaling={"minReplicas": 0, "maxReplicas": 1}))
    eventually(lambda: "conditions" in one(api, "llama", "zero").get("status", {}))
    eventually(lambda: "conditions" in one(api, "llama", "group").get("status", {}))
    eventually(lambda: "conditions" in one(api, "llama", "plain").get("status", {}))
    use_permissions_for_gateways(api)
    children = labelled(api)
    assert {child["kind"] for child in children} == {kind.kind for kind in CHILDREN}

    unlabelled = api.kubectl(
        "label", KINDS, "-l", names.SERVER_LABEL, f"{names.SERVER_LABEL}-", "-n", NAMESPACE
    )
    assert unlabelled.returncode == 0, unlabelled.stderr
    eventually(lambda: len(labelled(api)) == len(children), 30)

    obsolete = [
        obsolete_child(child) for child in {each["kind"]: each for each in children}.values()
    ]
    create(api, *obsolete)
    eventually(lambda: not [each for each in obsolete if one(api, each["kind"], "obsolete")])

    create(api, replica_set(one(api, "deployment", "plain-replicas")))
    pod = unschedulable(one(api, "replicaset", "plain-replicas"))
    create(api, pod)
    api.kubectl(
        *("patch", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--subresource=status"),
        *("--type=merge", "-p", yaml.safe_dump({"status": pod["status"]})),
    )
    eventually(lambda: "no node has" in conditions(api) or "0/1 nodes" in conditions(api))
    api.kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--now")

    # There is no kubelet to ask for its log.
    started = running(one(api, "replicaset", "plain-replicas"))
    create(api, started)
    api.kubectl(
        *("patch", "pod", started["metadata"]["name"], "-n", NAMESPACE, "--subresource=status"),
        *("--type=merge", "-p", yaml.safe_dump({"status": started["status"]})),
    )
    eventually(lambda: "LogUnavailable" in conditions(api))


def use_permissions_for_gateways(api: ApiServer) -> None:
    """Make the operator create a gateway's children, and correct one that was deleted."""
    gateway = raw_gateway("edge", batches={"storage": {"size": "1Gi"}})
    metadata = {**gateway["metadata"], "namespace": NAMESPACE}
    create(api, {**gateway, "metadata": metadata})
    eventually(lambda: "conditions" in one(api, "llamagw", "edge").get("status", {}))
    api.kubectl("delete", "service", "edge", "-n", NAMESPACE)
    eventually(lambda: one(api, "service", "edge"))

    claim = ("pvc", "edge-batches")
    api.kubectl("label", *claim, f"{names.GATEWAY_LABEL}-", "-n", NAMESPACE)
    eventually(lambda: names.GATEWAY_LABEL in one(api, *claim)["metadata"]["labels"], 30)
    create(api, {**raw_gateway("edge"), "metadata": metadata})
    # Its finalizer needs a controller that does not run here.
    eventually(lambda: is_deleted(one(api, *claim)))
    api.kubectl("patch", *claim, "-n", NAMESPACE, "-p", '{"metadata":{"finalizers":null}}')


def is_deleted(item: Any) -> bool:
    return not item or "deletionTimestamp" in item["metadata"]


def conditions(api: ApiServer) -> str:
    return str(one(api, "llama", "plain")["status"]["conditions"])


def server(name: str, **spec: Any) -> dict[str, Any]:
    raw = raw_server(name, **spec)
    return {**raw, "metadata": {**raw["metadata"], "namespace": NAMESPACE}}


def one(api: ApiServer, kind: str, name: str) -> Any:
    return get(api, kind, name, "-n", NAMESPACE)


def labelled(api: ApiServer) -> list[Any]:
    listing = get(api, KINDS, "-l", names.SERVER_LABEL, "-n", NAMESPACE)
    return list(listing["items"]) if listing else []


def obsolete_child(child: Any) -> dict[str, Any]:
    """Return a child under a name that is not desired, as an older operator could have left it."""
    copy = {key: child[key] for key in child.keys() - {"status", "metadata"}}
    if copy["kind"] == "Service":
        copy["spec"] = {"ports": [{"port": 80}]}
    if copy["kind"] == "Job":
        # The API server generates both.
        del copy["spec"]["selector"], copy["spec"]["template"]["metadata"]["labels"]
    metadata = {key: child["metadata"][key] for key in ("namespace", "labels", "ownerReferences")}
    return {**copy, "metadata": {**metadata, "name": "obsolete"}}


def replica_set(deployment: Any) -> dict[str, Any]:
    """Return a ReplicaSet of the Deployment, as the controller creates it, which does not run."""
    template = deployment["spec"]["template"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": deployment["metadata"]["name"],
            "namespace": NAMESPACE,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [controller(deployment)],
        },
        "spec": {"selector": deployment["spec"]["selector"], "template": template},
    }


def controller(owner: Any) -> dict[str, Any]:
    """Return the reference of an object to the one that controls it."""
    identity = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    kind = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    return {**kind, **identity, "controller": True}


def unschedulable(owner: Any) -> dict[str, Any]:
    template = owner["spec"]["template"]
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "plain-replicas-a",
            "namespace": NAMESPACE,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [controller(owner)],
        },
        "spec": template["spec"],
        "status": {"conditions": [{**condition, "message": "0/1 nodes are available"}]},
    }


def running(owner: Any) -> dict[str, Any]:
    """Return a pod whose llama-server is ready."""
    pod = unschedulable(owner)
    pod["metadata"]["name"] = "plain-replicas-b"
    image = pod["spec"]["containers"][0]["image"]
    state = {"running": {"startedAt": "2026-11-01T12:00:00Z"}}
    container = {"name": names.LLAMA_SERVER_CONTAINER, "image": image, "imageID": image}
    started = {"ready": True, "restartCount": 0, "state": state, "containerID": "containerd://1"}
    pod["status"] = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container | started],
    }
    return pod


def test_each_permission_is_used(requests: list[audit_log.Request]) -> None:
    used = {(each.resource, each.verb) for each in requests if each.is_operators}

    assert granted() - used == NOT_IN_AUDIT_LOG.keys()


def test_no_request_is_forbidden(
    requests: list[audit_log.Request], request: pytest.FixtureRequest
) -> None:
    forbidden = {
        f"{each.verb} {each.resource}"
        for each in requests
        if each.is_operators and each.status == 403
    }

    # Nodes are cluster-scoped. They are listed nevertheless, since it may be allowed separately.
    assert forbidden == ({"list nodes"} if "one namespace" in request.node.name else set())
