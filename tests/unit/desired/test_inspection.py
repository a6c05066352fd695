"""The Job that reads the headers of a model's files."""

from typing import Any

import pytest

from llamaservers import DOWNLOADS, IMAGES, server
from slotkeeper.desired import inspection, names
from slotkeeper.desired.manifests import manifests
from slotkeeper.download import options as download

URL = "https://models.example.com/model.gguf"
MEMORY = {"gpu": {"memory": "15Gi"}}


def job(model: dict[str, Any] | None = None, **spec: Any) -> Any:
    model = {"url": URL} if model is None else model
    return inspection.job(server("chat", model=model, **MEMORY | spec), IMAGES, DOWNLOADS)


def pod(model: dict[str, Any] | None = None, **spec: Any) -> Any:
    return job(model, **spec)["spec"]["template"]["spec"]


def options(model: dict[str, Any] | None = None, **spec: Any) -> download.Options:
    command = pod(model, **spec)["containers"][0]["command"]
    assert command[:2] == ["slotkeeper", "download"]
    return download.parse(command[2:])


@pytest.mark.parametrize(
    ("spec", "used"),
    [
        (MEMORY, True),
        ({}, False),
        ({"gpu": {"count": 0}}, False),
        (MEMORY | {"model": {"url": "image:///model.gguf"}}, False),
    ],
)
def test_a_server_has_it_if_the_memory_of_its_gpus_is_set(spec: dict[str, Any], used: bool) -> None:
    owner = server("chat", **spec)

    found = [each["metadata"]["name"] for each in manifests(owner, 1, IMAGES)]

    assert (inspection.name(owner) in found) is used


def test_it_reads_headers_with_the_credentials_of_the_download() -> None:
    model = {"url": URL, "sha256": "0" * 64, "tokenSecretRef": {"name": "huggingface"}}

    found = options(model)

    assert found.inspect
    assert found.token_file is not None
    assert found.guarded_namespace == "default"
    assert found.progress_port is None
    assert [file.url for file in found.files] == [URL]


@pytest.mark.parametrize(
    "cache", [{}, {"claimName": "models"}, {"node": True}, {"sizeLimit": "10Gi"}]
)
def test_what_it_receives_is_deleted_with_its_pod(cache: dict[str, Any]) -> None:
    model = {"url": URL, "cache": cache}

    assert {"name": "models", "emptyDir": {}} in pod(model)["volumes"]
    assert options(model).node_cache is None


def test_files_of_a_claim_are_read_there() -> None:
    found = pod({"url": "pvc://models/model.gguf"})

    [volume] = found["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


def test_a_claim_with_the_model_and_its_downloads_is_mounted() -> None:
    model = {
        "url": "pvc://models/model.gguf",
        "mmproj": {"url": "https://models.example.com/mmproj.gguf"},
        "cache": {"claimName": "models"},
    }

    [volume] = pod(model)["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "models"}


def test_it_requires_no_node_with_a_gpu_unless_a_volume_does() -> None:
    placement = {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"operator": "Exists"}]}

    anywhere = pod(placement=placement)
    bound = pod({"url": "pvc://models/model.gguf"}, placement=placement)

    assert "nodeSelector" not in anywhere
    assert "affinity" not in anywhere
    assert anywhere["tolerations"] == [{"operator": "Exists"}]
    assert bound["nodeSelector"] == {"pool": "gpu"}


def test_it_runs_where_balancers_may() -> None:
    found = pod(balancer={"placement": {"nodeSelector": {"kubernetes.io/arch": "amd64"}}})

    assert found["nodeSelector"] == {"kubernetes.io/arch": "amd64"}


def test_a_claim_is_read_beside_a_replica_that_has_it_attached() -> None:
    apart = [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}]
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}

    found = pod(
        {"url": "pvc://models/model.gguf"},
        placement={"affinity": affinity},
        gpu={"memory": "15Gi", "minMemory": "14Gi"},
    )["affinity"]

    [near] = found["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert near["podAffinityTerm"]["labelSelector"]["matchLabels"] == {
        "slotkeeper.dev/server": "chat",
        "slotkeeper.dev/component": "replica",
    }
    assert "podAntiAffinity" not in found
    assert "nodeAffinity" in found


def test_it_requests_little_whatever_llama_server_requests() -> None:
    large = {"requests": {"cpu": 16, "memory": "64Gi"}, "limits": {"memory": "64Gi"}}
    own = {"requests": {"cpu": "10m"}}

    [container] = pod(resources=large)["containers"]
    [small] = pod({"url": URL, "download": {"resources": own}})["containers"]

    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "256Mi"},
    }
    assert small["resources"] == own


def test_its_name_changes_with_the_files_only() -> None:
    def name(**spec: Any) -> str:
        return inspection.name(server("chat", **MEMORY | spec))

    assert name() == name(slots=64, contextPerSlot=256) == name(gpu={"memory": "20Gi"})
    assert name() != name(model={"url": URL, "sha256": "1" * 64})
    assert name(model={"url": URL}) == name(model={"url": URL, "cache": {"claimName": "models"}})


def test_a_download_that_can_never_succeed_ends_the_job() -> None:
    rules = job()["spec"]["podFailurePolicy"]["rules"]

    assert rules[1]["onExitCodes"]["containerName"] == names.DOWNLOAD_CONTAINER
    assert job()["spec"]["activeDeadlineSeconds"] == inspection.DEADLINE_SECONDS
