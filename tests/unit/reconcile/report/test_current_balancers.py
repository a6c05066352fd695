"""Ready counts balancers of the current spec only, and a new ServiceAccount makes a new one."""

from collections.abc import Mapping
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    deploy,
    edit_spec,
    pod_of,
    roll_out,
)
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.api.group import ACCESS_RULES_ANNOTATION
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS, ROLES, SERVICE_ACCOUNTS

WAITS_FOR_SECRET = {
    "conditions": [
        {"type": "Ready", "status": "False"},
        {"type": "PodScheduled", "status": "True"},
        {"type": "PodReadyToStartContainers", "status": "False"},
    ],
    "containerStatuses": [
        {
            "name": "balancer",
            "image": "balancer",
            "ready": False,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        }
    ],
}


def set_balancer(cluster: FakeCluster, **fields: Any) -> None:
    edit_spec(cluster, lambda spec: spec["balancer"].update(fields))


def require_keys(cluster: FakeCluster) -> None:
    set_balancer(cluster, apiKeys={"secretName": "chat-keys"})


def add_new_balancer(
    cluster: FakeCluster, status: Mapping[str, Any] | None = None, *, ready: bool = False
) -> Manifest:
    """Add a pod of the current template beside the old one."""
    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-balancer"], 7, ready=ready)
    return cluster.put(pod | ({"status": status} if status else {}))


def rules_in_force(cluster: FakeCluster) -> AccessRules:
    annotations = cluster.by_name(ROLES)["chat-balancer"]["metadata"]["annotations"]
    return AccessRules.from_annotation(annotations[ACCESS_RULES_ANNOTATION])


async def test_required_keys_are_in_force_before_the_server_is_ready_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    require_keys(cluster)
    await operator.reconcile()

    assert rules_in_force(cluster).api_keys_secret == "chat-keys"
    for kind in ("Ready", "BalancerReady"):
        found = condition(cluster, kind)
        assert (found["status"], found["reason"]) == ("False", "RollingOut")
        assert found["message"] == "0/1 balancers available and updated"
    add_new_balancer(cluster, ready=True)
    await operator.reconcile()
    assert condition(cluster, "Ready")["status"] == "True"


async def test_where_no_new_balancer_can_start_the_reason_is_reported_for_ever(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    require_keys(cluster)
    await operator.reconcile()
    add_new_balancer(cluster, WAITS_FOR_SECRET)
    await operator.run_for(600)

    found = condition(cluster, "Ready")
    assert (found["status"], found["reason"]) == ("False", "WaitingForSecret")
    assert "chat-keys" in found["message"]
    assert rules_in_force(cluster).api_keys_secret == "chat-keys"


async def test_the_rules_are_in_force_though_the_deployment_is_rejected(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    require_keys(cluster)

    def reject(verb: str, manifest: Manifest) -> Exception | None:
        rejected = verb == "apply" and manifest["kind"] == "Deployment"
        return ApiError(403, "Forbidden", "policy: no") if rejected else None

    cluster.inject_error = reject
    with pytest.raises(Exception, match="policy"):
        await operator.reconcile()

    assert rules_in_force(cluster).api_keys_secret == "chat-keys"
    assert condition(cluster, "Ready")["reason"] == "ApplyRejected"


async def test_one_balancer_of_the_current_spec_is_enough_and_replicas_are_no_new_spec(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    set_balancer(cluster, replicas=3)
    await operator.reconcile()

    found = condition(cluster, "BalancerReady")
    assert (found["status"], found["message"]) == ("True", "1/3 balancers available")


async def test_a_new_server_gets_its_balancers_with_the_uid_at_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()

    (uid,) = {each["metadata"]["uid"] for each in cluster.by_name(SERVICE_ACCOUNTS).values()}
    created = [each for each in cluster.writes if each.name == "chat-balancer"]
    assert template_uid(cluster) == uid
    assert [each.kind for each in created].count("Deployment") == 1


async def test_a_recreated_service_account_replaces_the_balancers_pods(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    before = template_uid(cluster)
    cluster.remove(SERVICE_ACCOUNTS, "default", "chat-balancer")
    await operator.reconcile()

    account = cluster.by_name(SERVICE_ACCOUNTS)["chat-balancer"]
    assert before != template_uid(cluster) == account["metadata"]["uid"]
    # The old pods' tokens are not valid any more.
    assert condition(cluster, "Ready")["reason"] == "RollingOut"
    roll_out(cluster)
    await operator.reconcile()
    assert condition(cluster, "Ready")["status"] == "True"


async def test_pods_stay_while_the_service_account_cannot_be_created(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    before = template_uid(cluster)
    cluster.remove(SERVICE_ACCOUNTS, "default", "chat-balancer")
    cluster.inject_error = lambda _, manifest: (
        ApiError(403, "Forbidden", "no") if manifest["kind"] == "ServiceAccount" else None
    )
    with pytest.raises(Exception, match="no"):
        await operator.reconcile()

    assert template_uid(cluster) == before
    assert "chat-balancer-0" in cluster.by_name(PODS)


def template_uid(cluster: FakeCluster) -> str:
    template = cluster.by_name(DEPLOYMENTS)["chat-balancer"]["spec"]["template"]
    uid: str = template["metadata"]["annotations"][names.ACCOUNT_UID_ANNOTATION]
    return uid
