"""The operator needs each right that the chart gives it, and no other."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from bench.reconcile import audit_log
from llamaservers import raw_server
from operator_process import (
    NAMESPACE as OWN_NAMESPACE,
)
from operator_process import (
    RBAC,
    as_the_operator,
    create,
    eventually,
    get,
    holder,
    operator_process,
    rights,
)
from slotkeeper.desired import names
from slotkeeper.kube.kinds import CHILDREN, LEASES

Right = tuple[str, str]
"""A resource and a verb."""

NAMESPACE = "rights"
KINDS = ",".join(kind.plural for kind in CHILDREN)

UNSEEN: Mapping[Right, str] = {
    **{
        (kind.plural, "create"): "an apply is a patch in the audit, and makes what is not there"
        for kind in CHILDREN
        if kind != LEASES  # the operator's own is made by a create
    },
    ("pods", "patch"): "with a scale-down, by what a balancer tells of each replica",
    ("llamaservers/finalizers", "update"): "asked for by OwnerReferencesPermissionEnforcement",
    **{("endpointslices", verb): "handed on to the balancers" for verb in ("get", "list", "watch")},
}
"""What is needed though no request of the operator's says so, and why."""


def granted() -> set[Right]:
    """All that the chart's files say."""
    rules = [rule for file in RBAC.glob("*.yaml") for rule in yaml.safe_load(file.read_text())]
    return {right for rule in rules for right in product(rule["resources"], rule["verbs"])}


@pytest.fixture(scope="module", params=["all namespaces", "one namespace"])
def asked(
    request: pytest.FixtureRequest, api: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[audit_log.Request]]:
    """What an operator has asked for that had to do all that it can."""
    began, folder = datetime.now(UTC), tmp_path_factory.mktemp("operator")
    alone = request.param == "one namespace"
    create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    given = rights(namespace=NAMESPACE if alone else "")
    create(api, *given)
    api.kubectl("delete", "lease", "--all", "-n", OWN_NAMESPACE)
    arguments = ("--namespace", NAMESPACE) if alone else ()
    with operator_process(as_the_operator(api, folder), folder / "log", *arguments):
        eventually(lambda: holder(api))
        keep_busy(api)
    yield list(audit_log.requests(api.audit_log, began))
    api.kubectl("delete", "llama", "--all", "-n", NAMESPACE)
    api.kubectl("delete", KINDS, "-l", names.SERVER_LABEL, "-n", NAMESPACE)
    for manifest in given[2:]:
        api.kubectl("delete", "-f", "-", stdin=yaml.safe_dump(manifest))


def keep_busy(api: ApiServer) -> None:
    """Have the operator make children, find hidden ones, delete some, and ask for nodes."""
    gpu = {"count": 1, "computeArch": "9.0"}
    create(api, server("plain", gpu=gpu), server("group", gpu=gpu, workers={"count": 1}))
    eventually(lambda: "conditions" in one(api, "llama", "group").get("status", {}))
    eventually(lambda: "conditions" in one(api, "llama", "plain").get("status", {}))
    children = labelled(api)
    assert {child["kind"] for child in children} == {kind.kind for kind in CHILDREN}

    hidden = api.kubectl(
        "label", KINDS, "-l", names.SERVER_LABEL, f"{names.SERVER_LABEL}-", "-n", NAMESPACE
    )
    assert hidden.returncode == 0, hidden.stderr
    eventually(lambda: len(labelled(api)) == len(children), 30)

    unwanted = [stray(child) for child in {each["kind"]: each for each in children}.values()]
    create(api, *unwanted)
    eventually(lambda: not [each for each in unwanted if one(api, each["kind"], "stray")])

    pod = unschedulable(one(api, "deployment", "plain-replicas"))
    create(api, pod)
    api.kubectl(
        *("patch", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--subresource=status"),
        *("--type=merge", "-p", yaml.safe_dump({"status": pod["status"]})),
    )
    eventually(lambda: "no node has" in said(api) or "0/1 nodes" in said(api))


def said(api: ApiServer) -> str:
    return str(one(api, "llama", "plain")["status"]["conditions"])


def server(name: str, **spec: Any) -> dict[str, Any]:
    raw = raw_server(name, **spec)
    return {**raw, "metadata": {**raw["metadata"], "namespace": NAMESPACE}}


def one(api: ApiServer, kind: str, name: str) -> Any:
    return get(api, kind, name, "-n", NAMESPACE)


def labelled(api: ApiServer) -> list[Any]:
    found = get(api, KINDS, "-l", names.SERVER_LABEL, "-n", NAMESPACE)
    return list(found["items"]) if found else []


def stray(child: Any) -> dict[str, Any]:
    """A child that no version of the operator wants any more."""
    kept = {key: child[key] for key in child.keys() - {"status", "metadata"}}
    if kept["kind"] == "Service":
        kept["spec"] = {"ports": [{"port": 80}]}
    about = {key: child["metadata"][key] for key in ("namespace", "labels", "ownerReferences")}
    return {**kept, "metadata": {**about, "name": "stray"}}


def unschedulable(deployment: Any) -> dict[str, Any]:
    template = deployment["spec"]["template"]
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "plain-replicas-a",
            "namespace": NAMESPACE,
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"],
        "status": {"conditions": [{**condition, "message": "0/1 nodes are available"}]},
    }


def is_alone(request: pytest.FixtureRequest) -> bool:
    return "one namespace" in request.node.name


def test_each_right_is_used(asked: list[audit_log.Request]) -> None:
    used = {(each.resource, each.verb) for each in asked if each.is_operators}

    assert granted() - used == UNSEEN.keys()


def test_nothing_is_asked_for_that_is_forbidden(
    asked: list[audit_log.Request], request: pytest.FixtureRequest
) -> None:
    refused = {
        f"{each.verb} {each.resource}" for each in asked if each.is_operators and each.status == 403
    }

    # Nodes belong to the cluster: asked for all the same, for somebody may have granted it.
    assert refused == ({"list nodes"} if is_alone(request) else set())
