"""Scenarios: what users and Kubernetes do to a server, step by step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fake_cluster import FakeCluster
from inspection_jobs import RECORD, end, inspections
from operator_harness import KEY, Operator, apply_server, edit_spec, roll_out, update_spec
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Manifest
from slotkeeper.kube.kinds import (
    CHILDREN,
    DEPLOYMENTS,
    LLAMA_SERVERS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from slotkeeper.reconcile.workqueue import RetryError

Step = Callable[[FakeCluster], object]


def apply_spec(**spec: Any) -> Step:
    """A user creates the server, or sets these fields of its spec."""

    def step(cluster: FakeCluster) -> None:
        if KEY.name in cluster.by_name(LLAMA_SERVERS):
            update_spec(cluster, **spec)
        else:
            apply_server(cluster, **spec)

    return step


def remove_fields(*fields: str) -> Step:
    """A user removes fields from the spec."""

    def remove(spec: dict[str, Any]) -> None:
        for field in fields:
            del spec[field]

    return lambda cluster: edit_spec(cluster, remove)


def delete_server(cluster: FakeCluster) -> None:
    """A user deletes the server; its children are not garbage-collected yet."""
    cluster.remove(LLAMA_SERVERS, KEY.namespace, KEY.name)


def collect_garbage(cluster: FakeCluster) -> None:
    """The garbage collector deletes children whose owner is deleted, and then their pods."""
    uids = {item["metadata"]["uid"] for item in cluster.by_name(LLAMA_SERVERS).values()}
    for kind in CHILDREN:
        for name, item in list(cluster.by_name(kind).items()):
            owners = item["metadata"].get("ownerReferences")
            if owners and not {owner["uid"] for owner in owners} & uids:
                cluster.remove(kind, KEY.namespace, name)
    if not cluster.by_name(DEPLOYMENTS):
        for name in list(cluster.by_name(PODS)):
            cluster.remove(PODS, KEY.namespace, name)


def cause_drift(cluster: FakeCluster) -> None:
    """A user scales the replicas' Deployment and deletes the clients' Service."""
    if "chat-replicas" in cluster.by_name(DEPLOYMENTS):
        cluster.edit(
            DEPLOYMENTS, KEY.namespace, "chat-replicas", lambda raw: raw["spec"].update(replicas=7)
        )
    if "chat" in cluster.by_name(SERVICES):
        cluster.remove(SERVICES, KEY.namespace, "chat")


def report_headers(cluster: FakeCluster) -> None:
    """The Job that reads the headers of the model ends."""
    if inspections(cluster):
        end(cluster, {"record": RECORD})


SCENARIOS: Mapping[str, Sequence[Step]] = {
    "edited": [
        apply_spec(replicas=2),
        roll_out,
        apply_spec(slots=0),
        apply_spec(slots=8, replicas=3),
        roll_out,
        apply_spec(model={"url": "https://example.com/other.gguf"}, balancer={"replicas": 2}),
        roll_out,
    ],
    "scaled": [
        apply_spec(replicas=1),
        roll_out,
        apply_spec(replicas=5),
        roll_out,
        apply_spec(autoscaling={"minReplicas": 2, "maxReplicas": 3}),
        roll_out,
        remove_fields("autoscaling"),
        apply_spec(suspend=True),
        roll_out,
        apply_spec(suspend=False, replicas=1),
        roll_out,
    ],
    "workers": [
        apply_spec(gpu={"count": 1}, replicas=2),
        roll_out,
        apply_spec(workers={"count": 2}),
        roll_out,
        apply_spec(workers={"count": 1}),
        roll_out,
        remove_fields("workers"),
        roll_out,
    ],
    "auto": [
        apply_spec(replicas=2, contextPerSlot="auto", gpu={"memory": "15Gi"}),
        report_headers,
        roll_out,
        apply_spec(slots=8),
        roll_out,
        apply_spec(model={"url": "https://example.com/other.gguf"}),
        report_headers,
        roll_out,
        apply_spec(contextPerSlot=4096),
        roll_out,
    ],
    "drifted": [apply_spec(replicas=2), roll_out, cause_drift, roll_out],
    "recreated": [
        apply_spec(replicas=2),
        roll_out,
        delete_server,
        apply_spec(replicas=1, slots=2),
        collect_garbage,
        roll_out,
    ],
    "prompts on claims": [
        apply_spec(promptCache={"claimName": "prompts"}),
        roll_out,
        apply_spec(promptCache={"claimName": "others"}),
        roll_out,
        remove_fields("promptCache"),
        roll_out,
        apply_spec(promptCache={"claimName": "prompts"}),
        roll_out,
        delete_server,
        collect_garbage,
    ],
    "deleted": [apply_spec(), roll_out, apply_spec(slots=8), delete_server, collect_garbage],
}
"""Each ends in a state in which nothing is left for the operator to do."""


async def try_reconcile(operator: Operator, *, deliver_events: bool = True) -> None:
    """Reconcile once; ignore that it is not finished.

    Without `deliver_events` it is one single pass.
    """
    with suppress(ApiError, RetryError):
        await (operator.reconcile() if deliver_events else operator.reconciler.reconcile(KEY))


async def reconcile_until_stable(operator: Operator, cluster: FakeCluster) -> None:
    """Reconcile until it writes nothing more."""
    for _ in range(5):
        written = len(cluster.writes)
        await try_reconcile(operator)
        if len(cluster.writes) == written:
            return
    raise AssertionError(f"the operator does not stop writing: {cluster.writes}")


def final_state(cluster: FakeCluster) -> dict[Any, Any]:
    """The server with its status, and its children as the operator specifies them.

    Without anything that depends on the steps that led there: an operator that is killed before it
    writes a change of the replicas to the status leaves no line in the history.
    """
    found = {
        place: {
            "labels": item["metadata"]["labels"],
            # The hash covers the owner's uid, which differs each time.
            "annotations": _without_hash(item["metadata"]["annotations"]),
            **_without_account(cluster, item),
        }
        for place, item in cluster.objects.items()
        if place[0] in CHILDREN
    }
    for name, server in cluster.by_name(LLAMA_SERVERS).items():
        desired = server["status"].get("scaling", {}).get("desiredReplicas")
        found[LLAMA_SERVERS, KEY.namespace, name] = {**server["status"], "scaling": desired}
    return found


def _without_account(cluster: FakeCluster, item: Manifest) -> Manifest:
    """The fields of a child, with whether a template has the uid of the present ServiceAccount."""
    fields: Manifest = {name: item[name] for name in item.keys() - {"metadata", "status"}}
    template = fields.get("spec", {}).get("template")
    uid = template and template["metadata"].get("annotations", {}).get(names.ACCOUNT_UID_ANNOTATION)
    if uid is None:
        return fields
    account = cluster.by_name(SERVICE_ACCOUNTS)[template["spec"]["serviceAccountName"]]
    metadata = {
        "labels": template["metadata"]["labels"],
        "current": uid == account["metadata"]["uid"],
    }
    spec = {**fields["spec"], "template": {**template, "metadata": metadata}}
    return {**fields, "spec": spec}


def _without_hash(annotations: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text for name, text in annotations.items() if name != names.APPLIED_HASH_ANNOTATION
    }
