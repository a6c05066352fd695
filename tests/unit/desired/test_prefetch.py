"""The Job that downloads a model before a replica is desired."""

from dataclasses import replace
from typing import Any

import pytest

from llamaservers import DOWNLOADS, IMAGES, server
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names, prefetch, replicas
from slotkeeper.desired.download_settings import NO_SETTINGS
from slotkeeper.desired.manifests import manifests
from slotkeeper.desired.metadata import Manifest
from slotkeeper.desired.names import Component
from slotkeeper.download import main as download

URL = "https://models.example.com/model.gguf"
CACHED: dict[str, Any] = {"url": URL, "cache": {"claimName": "models"}}
ON_NODE: dict[str, Any] = {"url": URL, "cache": {"node": True}}
TO_ZERO = {"minReplicas": 0, "maxReplicas": 2}
AT_NIGHT = {
    "minReplicas": 1,
    "maxReplicas": 2,
    "schedules": [{"cron": "0 19 * * *", "minReplicas": 0}],
}
SECRETS: dict[str, Any] = {
    "tokenSecretRef": {"name": "huggingface"},
    "s3": {"secretRef": {"name": "store"}},
    "adapters": [{"url": "pvc://adapters/legal.gguf"}, {"url": "s3://bucket/lora.gguf"}],
    "download": {"caConfigMapRef": {"name": "ca"}, "httpsProxy": "http://proxy.example.com:3128"},
}


def job(model: dict[str, Any] = CACHED, **spec: Any) -> Any:
    spec = {"autoscaling": TO_ZERO, **spec}
    return prefetch.job(server("chat", model=model, **spec), IMAGES, DOWNLOADS)


def pod(model: dict[str, Any] = CACHED, **spec: Any) -> Any:
    return job(model, **spec)["spec"]["template"]["spec"]


def replica(of: LlamaServer) -> Any:
    return replicas.deployment(of, 1, IMAGES)["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("model", "autoscaling", "used"),
    [
        pytest.param(CACHED, TO_ZERO, True, id="to zero with a claim"),
        pytest.param(CACHED, AT_NIGHT, True, id="to zero during a schedule"),
        pytest.param(CACHED, {"minReplicas": 1, "maxReplicas": 2}, False, id="never at zero"),
        pytest.param(CACHED, None, False, id="a fixed number of replicas"),
        pytest.param(ON_NODE, TO_ZERO, True, id="to zero with the cache of the node"),
        pytest.param(ON_NODE, None, False, id="a fixed number with the cache of the node"),
        pytest.param(ON_NODE | {"prefetch": True}, None, True, id="switched on for the node"),
        pytest.param({"url": URL}, TO_ZERO, False, id="files of the pod"),
        pytest.param(CACHED | {"prefetch": False}, TO_ZERO, False, id="switched off"),
        pytest.param(CACHED | {"prefetch": True}, None, True, id="switched on"),
        pytest.param(
            {"url": "pvc://models/a.gguf", "cache": {"claimName": "models"}},
            TO_ZERO,
            False,
            id="a model on a claim is not downloaded",
        ),
    ],
)
def test_a_server_has_a_job_where_files_outlive_pods_and_replicas_do_not(
    model: dict[str, Any], autoscaling: dict[str, Any] | None, used: bool
) -> None:
    of = server("chat", model=model, **({"autoscaling": autoscaling} if autoscaling else {}))
    kinds = [manifest["kind"] for manifest in manifests(of, 0, IMAGES, downloads=DOWNLOADS)]

    assert prefetch.is_used(of, DOWNLOADS) is used
    assert kinds.count("Job") == used


def test_without_the_charts_consent_nothing_is_downloaded_to_a_node() -> None:
    of = server("chat", model=ON_NODE, autoscaling=TO_ZERO)

    assert not prefetch.is_used(of, NO_SETTINGS)
    assert prefetch.is_used(of, DOWNLOADS)


def test_the_job_runs_the_init_container_of_a_replica() -> None:
    settings = replace(DOWNLOADS, https_proxy="http://proxy.example.com:3128")
    for model in (CACHED, CACHED | SECRETS, ON_NODE):
        of = server("chat", model=model, autoscaling=TO_ZERO)
        own = prefetch.job(of, IMAGES, settings)["spec"]["template"]["spec"]
        others = replicas.deployment(of, 1, IMAGES, settings)["spec"]["template"]["spec"]
        shared = ("securityContext", "automountServiceAccountToken", "enableServiceLinks")

        assert own["containers"] == others["initContainers"]
        assert [*own["volumes"], {"name": "tmp", "emptyDir": {}}] == others["volumes"]
        assert {field: own[field] for field in shared} == {field: others[field] for field in shared}


def test_the_job_goes_where_replicas_may_go_and_occupies_no_gpu() -> None:
    placement = {
        "nodeSelector": {"topology.kubernetes.io/zone": "b"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "inference",
        "schedulerName": "volcano",
        "runtimeClassName": "nvidia",
    }
    spec: dict[str, Any] = {
        "gpu": {"count": 2, "computeArch": "8.0"},
        "placement": placement,
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"limits": {"memory": "64Gi", "example.com/rdma": 1}},
    }
    own = pod(**spec)
    others = replica(server("chat", model=CACHED, autoscaling=TO_ZERO, **spec))

    for field in ("nodeSelector", "affinity", "priorityClassName", "schedulerName"):
        assert own[field] == others[field]
    assert own["imagePullSecrets"] == others["imagePullSecrets"]
    assert "runtimeClassName" not in own
    assert "topologySpreadConstraints" not in own
    # On many clouds, nodes with GPUs have this taint, and pods that request GPUs this toleration.
    gpus = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert own["tolerations"] == [*others["tolerations"], gpus]
    [container] = own["containers"]
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert container["resources"]["limits"]["memory"] == "64Gi"


GPU_MEMORY = {"key": "nvidia.com/gpu.memory", "operator": "Exists"}
ANY_NODE: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
NAMED_NODE: dict[str, Any] = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
            ]
        }
    }
}
NO_AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": "a"}}


@pytest.mark.parametrize(
    ("spec", "added"),
    [
        pytest.param({}, [GPU_MEMORY], id="any node with GPUs"),
        pytest.param({"placement": {"affinity": ANY_NODE}}, [GPU_MEMORY], id="a preference"),
        pytest.param(
            {"gpu": {"resourceName": "nvidia.com/mig-1g.5gb"}},
            [GPU_MEMORY | {"key": "nvidia.com/mig-1g.5gb.memory"}],
            id="MIG",
        ),
        pytest.param({"gpu": {"count": 0}}, [], id="no GPUs"),
        pytest.param({"gpu": {"resourceName": "amd.com/gpu"}}, [], id="GPUs without a label"),
        pytest.param({"placement": {"nodeSelector": {"pool": "gpus"}}}, [], id="a node selector"),
        pytest.param({"placement": {"affinity": NAMED_NODE}}, [], id="a required node"),
        pytest.param({"placement": {"affinity": NO_AFFINITY}}, [], id="not an affinity"),
    ],
)
def test_with_the_cache_of_the_node_the_job_goes_to_a_node_with_gpus(
    spec: dict[str, Any], added: list[Any]
) -> None:
    found = str(pod(ON_NODE, **spec).get("affinity"))

    assert [each for each in added if str(each) not in found] == []
    assert found.count("Exists") == len(added)
    # A file on a claim may be downloaded anywhere.
    assert "Exists" not in str(pod(CACHED, **spec).get("affinity"))


def test_gpu_labels_that_replicas_require_suffice() -> None:
    own = pod(ON_NODE, gpu={"computeArch": "8.0"})["affinity"]

    assert own == pod(CACHED, gpu={"computeArch": "8.0"})["affinity"]


def test_without_gpus_no_toleration_is_added() -> None:
    assert "tolerations" not in pod(gpu={"count": 0})


def test_the_pods_have_the_labels_of_replicas_but_are_not_selected_as_such() -> None:
    own = {"labels": {"team": "search"}, "annotations": {"sidecar.istio.io/inject": "false"}}
    metadata = job(podTemplate=own)["spec"]["template"]["metadata"]

    assert metadata["labels"]["team"] == "search"
    assert metadata["annotations"] == own["annotations"]
    assert metadata["labels"][names.COMPONENT_LABEL] == Component.PREFETCH
    assert metadata["labels"]["app.kubernetes.io/component"] == "prefetch"


def test_a_failure_for_good_ends_the_job_and_an_eviction_does_not_count() -> None:
    evicted, for_good = job()["spec"]["podFailurePolicy"]["rules"]

    assert evicted["action"] == "Ignore"
    assert for_good["action"] == "FailJob"
    assert for_good["onExitCodes"]["values"] == [download.EXIT_FAILURE]
    # The policy needs it.
    assert pod()["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"url": f"{URL}?v=2"}, False, id="URL"),
        pytest.param({"sha256": "ab" * 32}, False, id="checksum"),
        pytest.param({"cache": {"claimName": "others"}}, False, id="claim"),
        pytest.param({"cache": {"node": True}}, False, id="to the node"),
        pytest.param({"adapters": [{"url": f"{URL}?lora"}]}, False, id="another file"),
        pytest.param({"mmproj": {"url": f"{URL}?mmproj"}}, False, id="projector"),
        pytest.param({"download": {"hubEndpoint": "https://hub.example.com"}}, False, id="hub"),
        pytest.param({"s3": {"endpoint": "https://store.example.com"}}, False, id="object store"),
        pytest.param({"alias": "b"}, True, id="alias"),
        pytest.param({"tokenSecretRef": {"name": "huggingface"}}, True, id="token"),
        pytest.param({"download": {"maxFileSize": "1Gi"}}, True, id="maximum size"),
        pytest.param({"cache": {"claimName": "models", "verify": "Always"}}, True, id="verify"),
    ],
)
def test_the_name_changes_with_what_is_downloaded(change: dict[str, Any], same: bool) -> None:
    before, after = job(), job(CACHED | change)

    assert (before["metadata"]["name"] == after["metadata"]["name"]) is same


def test_the_name_outlives_a_release_and_the_hash_shows_a_change_of_the_pod() -> None:
    of = server("chat", model=CACHED, autoscaling=TO_ZERO)
    before = prefetch.job(of, IMAGES, DOWNLOADS)
    after = prefetch.job(of, replace(IMAGES, download="slotkeeper/download:0.2.0"), DOWNLOADS)

    assert before["metadata"]["name"] == after["metadata"]["name"]
    assert _hash(before) != _hash(after)
    assert _hash(before) == _hash(job())


def test_the_name_of_the_longest_server_is_a_label() -> None:
    name = prefetch.name(server("a" * 63, model=CACHED))

    assert len(name) <= 63
    assert name.endswith(prefetch.name(server("a", model=CACHED)).removeprefix("a"))


def _hash(manifest: Manifest) -> str:
    value: str = manifest["metadata"]["annotations"][names.TEMPLATE_HASH_ANNOTATION]
    return value
