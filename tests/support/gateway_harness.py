"""Gateways in tests of the operator: what users do with them, and what is read of them."""

from collections.abc import Callable
from typing import Any

from fake_cluster import FakeCluster
from llamagateways import raw_gateway
from operator_harness import Operator, roll_out
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import GATEWAY_CHILDREN, LLAMA_GATEWAYS
from slotkeeper.kube.objects import Key

GATEWAY = Key("default", "llm")


def apply_gateway(cluster: FakeCluster, name: str = GATEWAY.name, **spec: Any) -> Manifest:
    """Create a LlamaGateway as a user does."""
    raw = raw_gateway(name, **spec)
    raw["metadata"]["namespace"] = GATEWAY.namespace
    return cluster.put(raw)


def update_gateway(cluster: FakeCluster, **fields: Any) -> None:
    """Set fields of the gateway's spec."""
    edit_gateway(cluster, lambda raw: raw["spec"].update(fields))


def edit_gateway(cluster: FakeCluster, change: Callable[[Any], None]) -> None:
    """Change the gateway in place."""
    cluster.edit(LLAMA_GATEWAYS, *GATEWAY, change)


async def deploy_gateway(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Apply the gateway and reconcile until it is rolled out and its status reports so.

    The recorded writes are cleared.
    """
    apply_gateway(cluster, **spec)
    await operator.reconcile_gateways()
    roll_out(cluster)
    await operator.reconcile_gateways()
    cluster.writes.clear()


def gateway_status(cluster: FakeCluster, name: str = GATEWAY.name) -> Any:
    """The gateway's status as it is stored."""
    return cluster.by_name(LLAMA_GATEWAYS)[name].get("status", {})


def gateway_condition(cluster: FakeCluster, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of the condition of this type."""
    [found] = [each for each in gateway_status(cluster)["conditions"] if each["type"] == kind]
    return found["status"], found["reason"], found["message"]


def gateway_children(cluster: FakeCluster) -> set[tuple[str, str]]:
    """Kind and name of each child of a gateway."""
    return {
        (kind.kind, name)
        for kind in GATEWAY_CHILDREN
        for name, item in cluster.by_name(kind).items()
        if any(
            owner["kind"] == LLAMA_GATEWAYS.kind
            for owner in item["metadata"].get("ownerReferences") or ()
        )
    }


def models(cluster: FakeCluster) -> dict[str, tuple[str, str]]:
    """Server and state of each model in the status, by name."""
    return {
        each["name"]: (each["server"], each["state"]) for each in gateway_status(cluster)["models"]
    }
