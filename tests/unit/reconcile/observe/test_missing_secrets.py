"""A Secret that keeps pods from starting is named, and is a problem after a minute."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    KEY,
    Operator,
    apply_server,
    condition,
    deploy,
    event_messages,
    pod_of,
    put_replica_set,
    roll_out,
    set_pod_status,
    update_spec,
)
from pod_statuses import RUNNING, llama_server, volumes_not_mounted
from slotkeeper.kube.kinds import DEPLOYMENTS

UNMOUNTED = volumes_not_mounted(lastTransitionTime="2026-11-01T12:00:00Z")

TOKEN = {"model": {"url": "https://example.com/a.gguf", "tokenSecretRef": {"name": "gate"}}}

CREATE = "create it in the server's namespace"
CREATE_MISSING = "create what is missing in the server's namespace"
OF_TOKEN = "(model.tokenSecretRef: hosts are those that may receive the token)"
OF_KEY = "(model.s3.secretRef: hosts are those that the access key may be used for)"


def volume(**secret: Any) -> dict[str, Any]:
    return {"podTemplate": {"volumes": [{"name": "certificates", "secret": secret}]}}


async def deploy_waiting(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server whose replica has a node, and not its volumes."""
    apply_server(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, UNMOUNTED)
    await operator.reconcile()


async def deploy_waiting_balancer(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server that serves, and add a balancer that has a node, and not its volumes."""
    await deploy(cluster, operator, balancer={"apiKeys": {"secretName": "chat-keys"}})
    deployment = cluster.by_name(DEPLOYMENTS)["chat-balancer"]
    put_replica_set(cluster, deployment)
    cluster.put(pod_of(deployment, 7) | {"status": UNMOUNTED})
    await operator.reconcile()


@pytest.mark.parametrize(
    ("spec", "secret", "remedy"),
    [
        (
            TOKEN,
            "Secret gate {} token, hosts",
            f"{CREATE_MISSING} {OF_TOKEN}",
        ),
        (
            {"model": {"url": "s3://a-b/c", "s3": {"secretRef": {"name": "store"}}}},
            "Secret store {} AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, hosts",
            f"{CREATE_MISSING} {OF_KEY}",
        ),
        (
            volume(secretName="proxy-ca"),
            "Secret proxy-ca",
            f"{CREATE} (podTemplate.volumes)",
        ),
        (
            TOKEN | volume(secretName="proxy-ca"),
            "Secret gate {} token, hosts or proxy-ca",
            f"{CREATE_MISSING} {OF_TOKEN} or (podTemplate.volumes)",
        ),
    ],
)
async def test_a_replica_waits_for_its_secret_which_is_a_problem_after_a_minute(
    cluster: FakeCluster, operator: Operator, spec: Any, secret: str, remedy: str
) -> None:
    await deploy_waiting(cluster, operator, **spec)
    await operator.run_for(58)
    for kind in ("ModelReady", "Ready"):
        found = condition(cluster, kind)
        assert (found["status"], found["reason"]) == ("False", "WaitingForSecret")
        assert found["message"] == f"waiting for {secret.format('with its entries')}: {remedy}"
    assert condition(cluster, "ReplicasReady")["reason"] == "WaitingForSecret"
    assert condition(cluster, "Degraded")["status"] == "False"

    await operator.run_for(2)

    for kind in ("ModelReady", "ReplicasReady", "Ready"):
        assert condition(cluster, kind)["reason"] == "SecretNotFound"
    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "SecretNotFound")
    missing = secret.format("or one of its entries")
    assert found["message"].startswith(f"{missing} does not exist: {remedy}; ")
    assert "kubectl describe --namespace=default pods/chat-replicas" in found["message"]
    assert event_messages(cluster, "SecretNotFound") == [found["message"]]


@pytest.mark.parametrize(
    "spec",
    [
        {"model": TOKEN["model"] | {"cache": {"claimName": "models"}}},
        TOKEN
        | {"podTemplate": {"volumes": [{"name": "d", "csi": {"driver": "disk.example.com"}}]}},
    ],
    ids=["claim", "csi"],
)
async def test_a_disk_that_is_attached_slowly_is_no_missing_secret(
    cluster: FakeCluster, operator: Operator, spec: Any
) -> None:
    await deploy_waiting(cluster, operator, **spec)
    await operator.run_for(9 * 60)
    assert condition(cluster, "Ready")["reason"] == "WaitingForSecret"
    assert condition(cluster, "Degraded")["status"] == "False"

    await operator.run_for(60)
    assert condition(cluster, "Degraded")["reason"] == "SecretNotFound"


async def test_the_problem_ends_when_the_secret_is_mounted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_waiting(cluster, operator, **TOKEN)
    await operator.run_for(60)

    set_pod_status(cluster, llama_server(state=RUNNING))
    await operator.reconcile()

    assert condition(cluster, "Degraded")["status"] == "False"
    assert condition(cluster, "ReplicasReady")["reason"] == "LoadingModel"


@pytest.mark.parametrize("spec", [{}, volume(secretName="proxy-ca", optional=True)])
async def test_a_replica_that_requires_no_secret_waits_for_none(
    cluster: FakeCluster, operator: Operator, spec: Any
) -> None:
    await deploy_waiting(cluster, operator, **spec)
    await operator.run_for(120)

    assert condition(cluster, "ModelReady")["reason"] == "Pending"
    assert condition(cluster, "ReplicasReady")["reason"] == "Starting"
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_the_secret_of_a_balancer_is_a_problem_after_a_minute(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_waiting_balancer(cluster, operator)
    waiting = condition(cluster, "BalancerReady")["message"]
    before = condition(cluster, "Degraded")["status"]

    await operator.run_for(60)

    remedy = f"{CREATE} (balancer.apiKeys.secretName)"
    assert waiting.endswith(f"; waiting for Secret chat-keys: {remedy}")
    assert before == "False"
    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "SecretNotFound")
    assert f"Secret chat-keys does not exist: {remedy}" in found["message"]
    assert condition(cluster, "Ready")["status"] == "True"


async def test_waiting_for_a_secret_comes_before_what_only_needs_time(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, balancer={"apiKeys": {"secretName": "chat-keys"}})
    await operator.reconcile()
    deployment = cluster.by_name(DEPLOYMENTS)["chat-balancer"]
    put_replica_set(cluster, deployment)
    cluster.put(pod_of(deployment) | {"status": UNMOUNTED})

    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "Pending"
    assert condition(cluster, "Ready")["reason"] == "WaitingForSecret"


async def test_a_secret_of_the_environment_is_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    update_spec(cluster, replicas=1)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "proxy" not found'}
    set_pod_status(cluster, llama_server(state={"waiting": waiting}))

    await operator.reconcile(KEY)

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "SecretNotFound")
    assert found["message"] == f"Secret proxy not found: {CREATE} (podTemplate.env)"
