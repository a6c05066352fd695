"""What a user reads where the cache of a node is not allowed, or not there."""

from dataclasses import replace
from typing import Any

import pytest

from fake_cluster import FakeCluster
from llamaservers import DOWNLOADS
from operator_harness import (
    Operator,
    apply_server,
    condition,
    roll_out,
    set_pod_status,
    update_spec,
)
from pod_statuses import volumes_not_mounted
from slotkeeper.kube.kinds import DEPLOYMENTS
from slotkeeper.reconcile.observe.node_cache import pod_security_remedy

MODEL: dict[str, Any] = {"url": "https://example.com/a.gguf", "cache": {"node": True}}
UNMOUNTED = volumes_not_mounted(lastTransitionTime="2026-11-01T12:00:00Z")


def volume(cluster: FakeCluster) -> dict[str, Any]:
    pod = cluster.by_name(DEPLOYMENTS)["chat-replicas"]["spec"]["template"]["spec"]
    found: dict[str, Any] = next(each for each in pod["volumes"] if each["name"] == "models")
    return found


async def test_without_the_charts_consent_nothing_is_created_and_the_remedy_is_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.reconciler.downloads = replace(DOWNLOADS, node_cache_path=None)
    apply_server(cluster, model=MODEL)

    await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NodeCacheNotAllowed")
    assert "nodeCache.enabled" in ready["message"]
    assert condition(cluster, "Degraded")["status"] == "True"
    assert not cluster.by_name(DEPLOYMENTS)


async def test_prompts_on_a_node_need_a_consent_of_their_own(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.reconciler.downloads = replace(DOWNLOADS, node_prompts_path=None)
    apply_server(cluster, model=MODEL, promptCache={"node": True})

    await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NodeCacheNotAllowed")
    assert "nodeCache.promptsPath" in ready["message"]
    assert not cluster.by_name(DEPLOYMENTS)


async def test_with_it_replicas_mount_the_folder_of_their_namespace(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, model=MODEL)

    await operator.reconcile()

    assert volume(cluster)["hostPath"] == {
        "path": "/var/lib/slotkeeper/models/default",
        "type": "Directory",
    }


async def test_running_replicas_are_kept_when_it_is_withdrawn(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, model=MODEL)
    await operator.reconcile()
    before = cluster.by_name(DEPLOYMENTS)

    operator.reconciler.downloads = replace(DOWNLOADS, node_cache_path=None)
    update_spec(cluster, slots=7)
    await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "NodeCacheNotAllowed"
    assert cluster.by_name(DEPLOYMENTS) == before


@pytest.mark.parametrize("spec", [{"model": MODEL}, {"promptCache": {"node": True}}], ids=list)
@pytest.mark.parametrize(("second", "reason"), [(59, "Pending"), (60, "NodeCacheUnavailable")])
async def test_a_folder_that_is_not_there_after_a_minute_is_reported(
    cluster: FakeCluster, operator: Operator, second: int, reason: str, spec: dict[str, Any]
) -> None:
    apply_server(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, UNMOUNTED)
    operator.time.elapsed += second

    await operator.reconcile()

    model = condition(cluster, "ModelReady")
    assert model["reason"] == reason
    if reason == "NodeCacheUnavailable":
        assert "DaemonSet" in model["message"]
        assert "kubectl describe --namespace=default pods/" in model["message"]


FORBIDDEN = (
    'pods "chat-1" is forbidden: violates PodSecurity "restricted:latest": restricted volume types '
    '(volume "models" uses restricted volume type "hostPath")'
)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (FORBIDDEN, "model.cache"),
        (FORBIDDEN.replace('"models"', '"prompt-files"'), "promptCache"),
        (
            FORBIDDEN.replace('volume "models" uses', 'volumes "models", "prompt-files" use'),
            "model.cache",
        ),
        (FORBIDDEN.replace('volume "models" uses', 'volumes "own", "prompt-files" use'), "promptC"),
        (FORBIDDEN.replace('"models"', '"own"'), ""),
        ('violates PodSecurity "restricted": privileged (container "prompt-files" must not)', ""),
        ("exceeded quota: gpus", ""),
        ("", ""),
    ],
)
def test_the_remedy_is_that_of_the_volume_that_pod_security_forbids(
    message: str, field: str
) -> None:
    remedy = pod_security_remedy(message)

    assert ("pod-security.kubernetes.io/enforce=privileged" in remedy) == bool(field)
    assert remedy.startswith(f"; {field}" if field else "")
    assert bool(remedy) == bool(field)
