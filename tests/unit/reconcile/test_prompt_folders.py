"""The folder of prompts on a claim is removed with its server, by a Job that outlives it."""

from dataclasses import replace
from typing import Any

import pytest

from fake_cluster import FakeCluster
from llamaservers import IMAGES
from operator_harness import KEY, Operator, apply_server, deploy, event_reasons, update_spec
from slotkeeper.kube.cluster import Manifest, Unreachable
from slotkeeper.kube.kinds import (
    DEPLOYMENTS,
    JOBS,
    LLAMA_SERVERS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
)

CLAIM = "prompts"
ON_CLAIM = {"claimName": CLAIM}


@pytest.fixture(autouse=True)
def _claim(cluster: FakeCluster) -> None:
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": KEY.namespace},
        }
    )


def jobs(cluster: FakeCluster) -> list[Manifest]:
    return list(cluster.by_name(JOBS).values())


def suspended(cluster: FakeCluster) -> list[bool]:
    return [job["spec"]["suspend"] for job in jobs(cluster)]


def delete_server(cluster: FakeCluster) -> None:
    """Delete the server, and as the garbage collector all that it owns, but for its pods."""
    uid = cluster.by_name(LLAMA_SERVERS)[KEY.name]["metadata"]["uid"]
    cluster.remove(LLAMA_SERVERS, *KEY)
    for (kind, namespace, name), item in list(cluster.objects.items()):
        owners = item["metadata"].get("ownerReferences") or []
        if any(owner["uid"] == uid for owner in owners):
            cluster.remove(kind, namespace, name)


def end_pods(cluster: FakeCluster) -> None:
    for name in cluster.by_name(PODS):
        cluster.remove(PODS, KEY.namespace, name)


def end(cluster: FakeCluster, kind: str = "Complete") -> None:
    """The only Job ends."""
    [name] = cluster.by_name(JOBS)
    status = {"conditions": [{"type": kind, "status": "True"}]}
    cluster.edit(JOBS, KEY.namespace, name, lambda job: job.update(status=status))


async def test_the_job_is_created_with_the_server_and_outlives_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)

    [job] = jobs(cluster)
    uid = cluster.by_name(LLAMA_SERVERS)[KEY.name]["metadata"]["uid"]
    assert job["spec"]["suspend"] is True
    assert "ownerReferences" not in job["metadata"]
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["rm", "-rf", "--", f"/prompt-files/{uid}"]
    assert pod["volumes"] == [
        {"name": "prompt-files", "persistentVolumeClaim": {"claimName": "prompts"}}
    ]
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("place", [{"emptyDir": True}, {"node": True}])
async def test_other_places_need_no_job(
    cluster: FakeCluster, operator: Operator, place: dict[str, Any]
) -> None:
    await deploy(cluster, operator, promptCache=place)

    assert jobs(cluster) == []


async def test_a_deleted_server_s_folder_is_removed_after_its_last_pod(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    delete_server(cluster)

    await operator.reconcile()
    assert suspended(cluster) == [True]

    end_pods(cluster)
    await operator.reconcile()
    assert suspended(cluster) == [False]

    cluster.writes.clear()
    await operator.reconcile()
    assert cluster.writes == []


async def test_no_job_waits_for_a_claim_that_does_not_exist(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.remove(PERSISTENT_VOLUME_CLAIMS, KEY.namespace, CLAIM)
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    assert suspended(cluster) == [True]  # the claim may be created later
    delete_server(cluster)
    end_pods(cluster)

    await operator.reconcile()

    assert jobs(cluster) == []


async def test_no_job_waits_for_a_claim_that_is_being_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    deletion = {"deletionTimestamp": "2026-11-01T12:00:00Z"}
    cluster.edit(
        PERSISTENT_VOLUME_CLAIMS,
        KEY.namespace,
        CLAIM,
        lambda claim: claim["metadata"].update(deletion),
    )
    delete_server(cluster)
    end_pods(cluster)

    await operator.reconcile()

    assert jobs(cluster) == []


async def test_a_pod_that_has_ended_is_not_waited_for(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    delete_server(cluster)
    for name in cluster.by_name(PODS):
        cluster.edit(PODS, *KEY[:1], name, lambda pod: pod["status"].update(phase="Failed"))

    await operator.reconcile()

    assert suspended(cluster) == [False]


async def test_an_operator_that_was_down_removes_the_folder_later(cluster: FakeCluster) -> None:
    await deploy(cluster, Operator(cluster), promptCache=ON_CLAIM)
    delete_server(cluster)
    end_pods(cluster)

    await Operator(cluster).reconcile()

    assert suspended(cluster) == [False]


async def test_a_folder_is_kept_while_the_api_server_has_its_server(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    end_pods(cluster)
    raw = cluster.by_name(LLAMA_SERVERS)[KEY.name]
    await operator.deliver_events()
    # As after a watch that has lost its way.
    operator.store.confirm_deleted(raw)

    await operator.run_passes()

    assert suspended(cluster) == [True]


async def test_an_error_is_no_reason_to_forget_the_folder(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    delete_server(cluster)
    end_pods(cluster)
    cluster.fail(Unreachable(0, "", "connection lost"), "apply", JOBS)
    with pytest.raises(Unreachable):
        await operator.reconcile()

    cluster.recover()
    await operator.reconcile()

    assert suspended(cluster) == [False]


async def test_a_new_server_of_the_same_name_has_a_folder_of_its_own(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    delete_server(cluster)
    end_pods(cluster)
    apply_server(cluster, promptCache=ON_CLAIM)

    await operator.reconcile()

    uid = cluster.by_name(LLAMA_SERVERS)[KEY.name]["metadata"]["uid"]
    by_folder = {
        job["spec"]["template"]["spec"]["containers"][0]["command"][-1]: job["spec"]["suspend"]
        for job in jobs(cluster)
    }
    assert sorted(by_folder.values()) == [False, True]
    assert by_folder[f"/prompt-files/{uid}"] is True


@pytest.mark.parametrize("cache", [{"claimName": "others"}, {"emptyDir": True}, None])
async def test_a_folder_that_the_spec_no_longer_names_is_removed(
    cluster: FakeCluster, operator: Operator, cache: Any
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    update_spec(cluster, promptCache=cache)

    await operator.reconcile()
    assert False not in suspended(cluster)

    end_pods(cluster)
    await operator.reconcile()
    by_claim = {
        job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]: job[
            "spec"
        ]["suspend"]
        for job in jobs(cluster)
    }
    assert by_claim.pop("prompts") is False
    assert by_claim == ({"others": True} if cache == {"claimName": "others"} else {})


async def test_a_folder_that_is_used_again_is_kept(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    update_spec(cluster, promptCache=None)
    end_pods(cluster)
    await operator.reconcile()
    assert suspended(cluster) == [False]

    update_spec(cluster, promptCache=ON_CLAIM)
    await operator.reconcile()

    assert suspended(cluster) == [True]
    assert "DriftCorrected" not in event_reasons(cluster)


@pytest.mark.parametrize("outcome", ["Complete", "Failed"])
async def test_a_job_that_has_ended_is_replaced_if_the_folder_is_used_again(
    cluster: FakeCluster, operator: Operator, outcome: str
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    update_spec(cluster, promptCache=None)
    end_pods(cluster)
    await operator.reconcile()
    end(cluster, outcome)
    before = jobs(cluster)[0]["metadata"]["uid"]

    update_spec(cluster, promptCache=ON_CLAIM)
    await operator.reconcile()

    [job] = jobs(cluster)
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["uid"] != before
    assert "status" not in job


async def test_a_new_release_replaces_the_job(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    newer = Operator(cluster)
    images = replace(IMAGES, download="slotkeeper/download:0.2.0")
    newer.reconciler._images = images

    await newer.reconcile()

    [job] = jobs(cluster)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], job["spec"]["suspend"]) == (images.download, True)


async def test_a_pod_that_mounts_the_claim_for_itself_is_not_waited_for(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    delete_server(cluster)
    for name in cluster.by_name(PODS):
        cluster.edit(PODS, KEY.namespace, name, without_sub_path)

    await operator.reconcile()

    assert suspended(cluster) == [False]


def without_sub_path(pod: Any) -> None:
    for container in pod["spec"]["containers"]:
        for mount in container.get("volumeMounts", ()):
            mount.pop("subPath", None)


async def test_a_job_that_is_deleted_meanwhile_is_not_created_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    delete_server(cluster)
    end_pods(cluster)
    await operator.deliver_events()
    [name] = cluster.by_name(JOBS)
    cluster.remove(JOBS, KEY.namespace, name)

    await operator.run_passes()

    assert jobs(cluster) == []


async def test_a_job_of_a_user_is_left_alone(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    [job] = jobs(cluster)
    owner = {"kind": "CronJob", "name": "a", "uid": "b", "controller": True}
    metadata = {
        name: each for name, each in job["metadata"].items() if name in {"namespace", "labels"}
    }
    cluster.put({**job, "metadata": metadata | {"name": "own", "ownerReferences": [owner]}})
    delete_server(cluster)
    end_pods(cluster)

    await operator.reconcile()

    assert cluster.by_name(JOBS)["own"]["spec"]["suspend"] is True


async def test_a_suspended_server_keeps_its_prompts(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, promptCache=ON_CLAIM)
    update_spec(cluster, suspend=True)
    end_pods(cluster)

    await operator.reconcile()

    assert suspended(cluster) == [True]
    assert cluster.by_name(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 0
