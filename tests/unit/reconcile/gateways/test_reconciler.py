"""A gateway's objects and status follow its spec, its pods and the servers that it selects."""

from typing import Any

import pytest

from fake_cluster import FakeCluster, KilledError
from gateway_harness import (
    GATEWAY,
    apply_gateway,
    deploy_gateway,
    edit_gateway,
    gateway_children,
    gateway_condition,
    gateway_status,
    models,
    update_gateway,
)
from llamaservers import raw_server
from operator_harness import (
    KEY,
    START,
    Operator,
    apply_server,
    deploy,
    event_messages,
    event_reasons,
    pod_of,
    put_replica_set,
    roll_out,
    server_status,
    update_spec,
)
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import (
    DEPLOYMENTS,
    LLAMA_GATEWAYS,
    LLAMA_SERVERS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from slotkeeper.reconcile.observe.missing_secrets import MOUNT_TIMEOUT
from slotkeeper.reconcile.watch.kept import MAX_RESOURCE_BYTES
from slotkeeper.reconcile.workqueue import RetryError

CHILDREN = {
    ("ServiceAccount", "llm-gateway"),
    ("Role", "llm-gateway"),
    ("RoleBinding", "llm-gateway"),
    ("Service", "llm"),
    ("NetworkPolicy", "llm-gateway"),
    ("PodDisruptionBudget", "llm-gateway"),
    ("Deployment", "llm-gateway"),
}
KEYS = {"secretRef": {"name": "keys"}}


async def test_a_new_gateway_gets_its_children_and_a_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_gateway(cluster)

    await operator.reconcile_gateways()

    assert gateway_children(cluster) == CHILDREN
    assert gateway_condition(cluster, "Ready") == (
        *("False", "Starting"),
        "0/2 gateway pods available",
    )
    assert gateway_condition(cluster, "Degraded")[:2] == ("False", "AsExpected")
    status = gateway_status(cluster)
    assert status["url"] == "http://llm.default.svc"
    assert status["observedGeneration"] == 1
    assert (status["readyReplicas"], status["modelsReady"]) == (0, "0/0")


async def test_it_is_ready_with_pods_of_the_current_template(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator, tls={"secretName": "cert"})

    assert gateway_condition(cluster, "Ready") == (
        *("True", "Serving"),
        "serving at https://llm.default.svc, 2/2 gateway pods available",
    )
    assert gateway_status(cluster)["readyReplicas"] == 2
    assert event_reasons(cluster) == ["Ready"]


async def test_a_rollout_is_not_ready_until_all_pods_are_updated(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    update_gateway(cluster, maxBodyBytes="64Mi")
    await operator.reconcile_gateways()
    [deployment] = cluster.by_name(DEPLOYMENTS).values()
    rolling = {"replicas": 3, "updatedReplicas": 1, "readyReplicas": 2}
    generation = deployment["metadata"]["generation"]
    cluster.put({**deployment, "status": {**rolling, "observedGeneration": generation}})

    await operator.reconcile_gateways()

    assert gateway_condition(cluster, "Ready") == (
        *("False", "RollingOut"),
        "2/2 gateway pods available, 1 of them updated",
    )


async def test_without_a_change_nothing_is_written(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await deploy_gateway(cluster, operator)

    for _ in range(3):
        operator.relist()
        await operator.reconcile_gateways()
    await Operator(cluster).reconcile_gateways()

    assert cluster.writes == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: item["spec"].update(replicas=7), "spec.replicas"),
        (
            lambda item: item["metadata"]["labels"].pop("slotkeeper.dev/gateway"),
            "metadata.labels[slotkeeper.dev/gateway]",
        ),
    ],
    ids=["replicas", "label"],
)
async def test_drift_is_corrected_with_an_event(
    cluster: FakeCluster, operator: Operator, change: Any, message: str
) -> None:
    await deploy_gateway(cluster, operator)
    before = cluster.by_name(DEPLOYMENTS)["llm-gateway"]["spec"]
    cluster.edit(DEPLOYMENTS, "default", "llm-gateway", change)

    await operator.reconcile_gateways()

    found = cluster.by_name(DEPLOYMENTS)["llm-gateway"]
    assert found["spec"] == before
    assert found["metadata"]["labels"]["slotkeeper.dev/gateway"] == "llm"
    [event] = event_messages(cluster, "DriftCorrected")
    assert event.startswith(f"Deployment llm-gateway: {message} ")


async def test_a_deleted_child_is_created_again(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_gateway(cluster, operator)
    cluster.remove(SERVICES, "default", "llm")

    await operator.reconcile_gateways()

    assert gateway_children(cluster) == CHILDREN
    assert event_messages(cluster, "DriftCorrected") == ["Service llm was deleted; created again"]


async def test_a_field_conflict_names_the_gateway_s_remedy(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    for _ in range(5):
        cluster.edit(
            DEPLOYMENTS, "default", "llm-gateway", lambda item: item["spec"].update(replicas=7)
        )
        operator.time.elapsed += 1
        await operator.reconcile_gateways()

    status, reason, message = gateway_condition(cluster, "Degraded")

    assert (status, reason) == ("True", "FieldConflict")
    assert message.endswith("scale the LlamaGateway instead of its Deployment")
    assert operator.gateway_reconciler.conflicts() == 1


async def test_an_invalid_spec_is_reported_and_changes_no_child(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    update_gateway(cluster, replicas=0)

    await operator.reconcile_gateways()

    assert [write.verb for write in cluster.writes] == ["patch_status"]
    assert gateway_condition(cluster, "Ready")[:2] == ("False", "InvalidSpec")
    assert "spec.replicas: " in gateway_condition(cluster, "Degraded")[2]
    assert {each["type"] for each in gateway_status(cluster)["conditions"]} == {
        "Ready",
        "Degraded",
    }


async def test_a_gateway_that_is_too_large_is_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    large = {"note": "x" * MAX_RESOURCE_BYTES}
    edit_gateway(cluster, lambda raw: raw["metadata"].update(annotations=large))

    await operator.reconcile_gateways()

    status, reason, message = gateway_condition(cluster, "Degraded")
    assert (status, reason) == ("True", "InvalidSpec")
    assert message.startswith("the resource cannot be read: it has ")


async def test_a_service_of_a_server_with_its_name_is_a_name_conflict(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    apply_gateway(cluster, name=KEY.name)

    with pytest.raises(RetryError):
        await operator.reconcile_gateways()

    [ready, _] = gateway_status(cluster, KEY.name)["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "NameConflict")
    assert ready["message"].startswith(
        "Service chat exists and is owned by LlamaServer chat: delete or rename one of them"
    )
    owners = cluster.by_name(SERVICES)["chat"]["metadata"]["ownerReferences"]
    assert [owner["kind"] for owner in owners] == ["LlamaServer"]


async def test_a_rejected_child_is_reported(cluster: FakeCluster, operator: Operator) -> None:
    cluster.inject_error = lambda verb, manifest: (
        ApiError(403, "Forbidden", "exceeded quota")
        if (verb, manifest["kind"]) == ("apply", "Deployment")
        else None
    )
    apply_gateway(cluster)

    with pytest.raises(ApiError):
        await operator.reconcile_gateways()

    assert gateway_condition(cluster, "Ready") == ("False", "ApplyRejected", "exceeded quota")


async def test_a_deleted_gateway_is_forgotten(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_gateway(cluster, operator)
    labels = {"kind": "LlamaGateway", "namespace": "default", "name": "llm", "type": "Ready"}
    gauge = "slotkeeper_operator_condition"
    assert operator.registry.get_sample_value(gauge, labels) == 1

    cluster.remove(LLAMA_GATEWAYS, *GATEWAY)
    await operator.reconcile_gateways()

    assert operator.registry.get_sample_value(gauge, labels) is None
    assert operator.runtime.gateways.states.find(GATEWAY) is None


async def test_a_gateway_that_is_being_deleted_is_left_alone(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    edit_gateway(
        cluster, lambda raw: raw["metadata"].update(deletionTimestamp="2026-11-01T12:00:00Z")
    )
    cluster.remove(SERVICES, "default", "llm")

    await operator.reconcile_gateways()

    assert cluster.writes == []


async def test_a_gateway_deleted_behind_a_broken_watch_is_not_created_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    cluster.remove(LLAMA_GATEWAYS, *GATEWAY)
    cluster.remove(SERVICES, "default", "llm")
    operator._watched_versions[LLAMA_GATEWAYS, LLAMA_GATEWAYS] = str(cluster._version)

    await operator.reconcile_gateways()

    assert cluster.writes == []


async def test_the_models_are_those_of_the_selected_servers(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await deploy_gateway(cluster, operator)

    assert models(cluster) == {"chat": ("chat", "Ready")}
    assert gateway_status(cluster)["modelsReady"] == "1/1"


async def test_a_change_of_a_server_reconciles_the_gateways_that_select_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await deploy_gateway(cluster, operator)
    apply_gateway(cluster, "other", serverSelector={"matchLabels": {"team": "other"}})
    await operator.reconcile_gateways()
    operator.passes.clear()

    update_spec(cluster, suspend=True)
    await operator.reconcile()
    operator.passes.clear()
    await operator.reconcile_gateways()

    assert set(operator.passes) == {GATEWAY}
    assert models(cluster) == {"chat": ("chat", "Failed")}


async def test_the_operator_s_own_write_of_a_status_reaches_the_gateway(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    apply_server(cluster)
    await operator.reconcile()
    await operator.reconcile_gateways()
    assert models(cluster) == {"chat": ("chat", "Waking")}

    roll_out(cluster)
    await operator.reconcile()
    assert server_status(cluster)["readyReplicas"] == 1
    await operator.reconcile_gateways()

    assert models(cluster) == {"chat": ("chat", "Ready")}


async def test_busy_slots_of_a_server_reconcile_no_gateway(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await deploy_gateway(cluster, operator)
    operator.passes.clear()

    cluster.edit(LLAMA_SERVERS, *KEY, lambda raw: raw["status"].update(queued=7))
    await operator.deliver_events()
    operator.passes.clear()
    await operator._run_due_passes(operator.runtime.gateways.queue, operator.runtime.gateways.work)

    assert operator.passes == []


async def test_a_deleted_server_s_model_is_gone(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator)
    await deploy_gateway(cluster, operator, defaultModel="chat")

    cluster.remove(LLAMA_SERVERS, *KEY)
    await operator.reconcile_gateways()

    assert models(cluster) == {}
    assert gateway_condition(cluster, "Degraded")[:2] == ("True", "UnknownModel")
    assert gateway_condition(cluster, "Ready")[0] == "True"
    assert "UnknownModel" in event_reasons(cluster, "Warning")


async def test_two_servers_with_one_model_name_are_a_problem(
    cluster: FakeCluster, operator: Operator
) -> None:
    for name in ("chat", "chat2"):
        url = "https://models.example.com/model.gguf"
        apply_server(cluster, name, model={"url": url, "alias": "qwen"})
    await deploy_gateway(cluster, operator)

    assert gateway_condition(cluster, "Degraded")[:2] == ("True", "DuplicateModel")
    assert list(models(cluster)) == ["qwen"]


async def test_a_weird_server_affects_only_its_own_model(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    weird = raw_server("weird")
    weird["metadata"]["namespace"] = "default"
    cluster.put({**weird, "spec": {"model": "no object"}})
    await deploy_gateway(cluster, operator)

    assert models(cluster) == {"chat": ("chat", "Ready")}


async def test_a_missing_secret_is_a_problem_after_a_minute(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_gateway(cluster, apiKeys=KEYS, tls={"secretName": "cert"})
    await operator.reconcile_gateways()
    deployment = cluster.by_name(DEPLOYMENTS)["llm-gateway"]
    put_replica_set(cluster, deployment)
    lacking = {
        "type": "PodReadyToStartContainers",
        "status": "False",
        "lastTransitionTime": rfc3339(START),
    }
    cluster.put(pod_of(deployment, ready=False) | {"status": {"conditions": [lacking]}})

    await operator.reconcile_gateways()
    first = gateway_condition(cluster, "Ready")
    assert gateway_condition(cluster, "Degraded")[0] == "False"
    operator.time.elapsed += MOUNT_TIMEOUT.total_seconds()
    await operator.runtime.gateways.check_due()
    await operator.reconcile_gateways()

    assert first[:2] == ("False", "WaitingForSecret")
    assert gateway_condition(cluster, "Ready")[:2] == ("False", "SecretNotFound")
    status, reason, message = gateway_condition(cluster, "Degraded")
    assert (status, reason) == ("True", "SecretNotFound")
    assert message.startswith(
        "Secret keys or cert does not exist: create it in the gateway's namespace "
        "(apiKeys.secretRef) or (tls.secretName); "
    )


async def test_an_unschedulable_pod_is_a_problem(cluster: FakeCluster, operator: Operator) -> None:
    apply_gateway(cluster)
    await operator.reconcile_gateways()
    deployment = cluster.by_name(DEPLOYMENTS)["llm-gateway"]
    put_replica_set(cluster, deployment)
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    unschedulable = {"conditions": [{**scheduled, "message": "0/1 nodes are available"}]}
    cluster.put(pod_of(deployment, ready=False) | {"status": unschedulable})

    await operator.reconcile_gateways()

    assert gateway_condition(cluster, "Degraded") == (
        *("True", "Unschedulable"),
        "0/1 nodes are available",
    )


async def test_a_pod_of_another_owner_is_not_believed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    pod = cluster.by_name(PODS)["llm-gateway-0"]
    cluster.put({**pod, "metadata": {**pod["metadata"], "name": "forged", "ownerReferences": []}})

    await operator.reconcile_gateways()

    assert gateway_status(cluster)["readyReplicas"] == 2


@pytest.mark.parametrize("writes", range(1, len(CHILDREN) + 2))
async def test_an_operator_that_is_killed_after_a_write_is_continued_by_the_next(
    cluster: FakeCluster, operator: Operator, writes: int
) -> None:
    apply_gateway(cluster, defaultModel="gone")
    cluster.raise_after_write = {writes: KilledError()}
    with pytest.raises(KilledError):
        await operator.reconcile_gateways()
    cluster.raise_after_write = {}

    await Operator(cluster).reconcile_gateways()

    assert gateway_children(cluster) == CHILDREN
    assert gateway_condition(cluster, "Degraded")[1] == "UnknownModel"
    assert event_reasons(cluster) == ["UnknownModel"]


async def test_a_standby_reconciles_no_gateway(cluster: FakeCluster, operator: Operator) -> None:
    apply_gateway(cluster)
    operator.lease.is_valid = lambda: False  # type: ignore[method-assign]

    with pytest.raises(RetryError, match="another operator may lead"):
        await operator.reconcile_gateways()

    assert cluster.writes == []


async def test_servers_and_gateways_share_no_child(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await deploy_gateway(cluster, operator)
    before = gateway_children(cluster)

    cluster.remove(LLAMA_SERVERS, *KEY)
    await operator.reconcile()
    await operator.reconcile_gateways()

    assert gateway_children(cluster) == before
    assert not operator.store.children(KEY) or all(
        name.startswith("chat") for _, name in operator.store.children(KEY)
    )


async def test_a_recreated_service_account_replaces_the_pods(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator)
    cluster.remove(SERVICE_ACCOUNTS, "default", "llm-gateway")

    await operator.reconcile_gateways()

    account = cluster.by_name(SERVICE_ACCOUNTS)["llm-gateway"]
    template = cluster.by_name(DEPLOYMENTS)["llm-gateway"]["spec"]["template"]
    uid = template["metadata"]["annotations"]["slotkeeper.dev/service-account-uid"]
    assert uid == account["metadata"]["uid"]
