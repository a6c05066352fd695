"""What users and Kubernetes do to a server, step by step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, change_spec, roll_out, stored
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, PODS, SERVICES
from slotkeeper.reconcile.workqueue import RetryError

Step = Callable[[FakeCluster], object]


def applied(**spec: Any) -> Step:
    """A user makes the server, or says more in its spec."""

    def step(cluster: FakeCluster) -> None:
        if KEY.name in cluster.named(LLAMA_SERVERS):
            change_spec(cluster, lambda said: said.update(spec))
        else:
            stored(cluster, **spec)

    return step


def without(*fields: str) -> Step:
    """A user takes fields out of the spec."""

    def drop(spec: dict[str, Any]) -> None:
        for field in fields:
            del spec[field]

    return lambda cluster: change_spec(cluster, drop)


def server_removed(cluster: FakeCluster) -> None:
    """A user deletes the server; the garbage collector is not there yet."""
    cluster.remove(LLAMA_SERVERS, KEY.namespace, KEY.name)


def collected(cluster: FakeCluster) -> None:
    """The garbage collector takes children without an owner, and pods without theirs."""
    there = {item["metadata"]["uid"] for item in cluster.named(LLAMA_SERVERS).values()}
    for kind in CHILDREN:
        for name, item in list(cluster.named(kind).items()):
            if not {owner["uid"] for owner in item["metadata"]["ownerReferences"]} & there:
                cluster.remove(kind, KEY.namespace, name)
    if not cluster.named(DEPLOYMENTS):
        for name in list(cluster.named(PODS)):
            cluster.remove(PODS, KEY.namespace, name)


def drifted(cluster: FakeCluster) -> None:
    """Somebody scales the replicas by hand and deletes the clients' Service."""
    if "chat-replicas" in cluster.named(DEPLOYMENTS):
        cluster.edit(
            DEPLOYMENTS, KEY.namespace, "chat-replicas", lambda raw: raw["spec"].update(replicas=7)
        )
    if "chat" in cluster.named(SERVICES):
        cluster.remove(SERVICES, KEY.namespace, "chat")


SCENARIOS: Mapping[str, Sequence[Step]] = {
    "edited": [
        applied(replicas=2),
        roll_out,
        applied(slots=0),
        applied(slots=8, replicas=3),
        roll_out,
        applied(model={"url": "https://example.com/other.gguf"}, balancer={"replicas": 2}),
        roll_out,
    ],
    "scaled": [
        applied(replicas=1),
        roll_out,
        applied(replicas=5),
        roll_out,
        applied(autoscaling={"minReplicas": 2, "maxReplicas": 3}),
        roll_out,
        without("autoscaling"),
        applied(suspend=True),
        roll_out,
        applied(suspend=False, replicas=1),
        roll_out,
    ],
    "of other kinds": [
        applied(gpu={"count": 1}, replicas=2),
        roll_out,
        applied(workers={"count": 2}),
        roll_out,
        applied(workers={"count": 1}),
        roll_out,
        without("workers"),
        roll_out,
    ],
    "drifted": [applied(replicas=2), roll_out, drifted, roll_out],
    "made anew": [
        applied(replicas=2),
        roll_out,
        server_removed,
        applied(replicas=1, slots=2),
        collected,
        roll_out,
    ],
    "deleted": [applied(), roll_out, applied(slots=8), server_removed, collected],
}
"""Each ends where the operator has nothing left to do."""


async def tried(operator: Operator, *, sees: bool = True) -> None:
    """Reconcile once, by default with all that there is in sight; what it cannot do yet is left."""
    with suppress(ApiError, RetryError):
        await (operator.reconcile() if sees else operator.reconciler.reconcile(KEY))


async def settled(operator: Operator, cluster: FakeCluster) -> None:
    """Reconcile until nothing is left to be written."""
    for _ in range(5):
        written = len(cluster.writes)
        await tried(operator)
        if len(cluster.writes) == written:
            return
    raise AssertionError(f"it goes on writing: {cluster.writes}")


def outcome(cluster: FakeCluster) -> dict[Any, Any]:
    """The server with its status, and the children as the operator wants them.

    Without what tells of the way there: who dies before it can write down a change of the replicas
    leaves no line of it.
    """
    found = {
        place: {
            "labels": item["metadata"]["labels"],
            # The mark covers the uid of the owner, which is another each time.
            "annotations": _unmarked(item["metadata"]["annotations"]),
            **{name: item[name] for name in item.keys() - {"metadata", "status"}},
        }
        for place, item in cluster.objects.items()
        if place[0] in CHILDREN
    }
    for name, server in cluster.named(LLAMA_SERVERS).items():
        wanted = server["status"].get("scaling", {}).get("desiredReplicas")
        found[LLAMA_SERVERS, KEY.namespace, name] = {**server["status"], "scaling": wanted}
    return found


def _unmarked(annotations: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text for name, text in annotations.items() if name != names.APPLIED_HASH_ANNOTATION
    }
