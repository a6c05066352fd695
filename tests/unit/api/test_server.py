from typing import Any

import pytest

from llamaservers import parsed, raw_server
from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.model import Model
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.resources import Resources
from slotkeeper.api.server import LlamaServerSpec


def test_all_fields_except_the_model_have_defaults() -> None:
    server = parsed(raw_server("chat"))

    assert (server.name, server.namespace, server.generation) == ("chat", "default", 1)
    assert (server.deleting, server.status) == (False, {})
    assert server.spec == LlamaServerSpec(
        model=Model(url="https://models.example.com/model.gguf", sha256=None),
        slots=4,
        context_per_slot=4096,
        gpu=Gpu(count=1, resource_name="nvidia.com/gpu", compute_arch=None),
        resources=Resources(requests={}, limits={}),
        image=None,
        replicas=1,
        autoscaling=None,
    )


def test_all_fields_are_parsed() -> None:
    spec = parsed(
        raw_server(
            model={"url": "http://models.svc/a.gguf?v=2", "sha256": "aB" * 32},
            slots=8,
            contextPerSlot=8192,
            gpu={"count": 2, "resourceName": "nvidia.com/mig-3g.20gb", "computeArch": "sm_80"},
            resources={"requests": {"cpu": "500m"}, "limits": {"cpu": 1, "example.com/card": 1}},
            image="example.com/llama-server:1",
            replicas=0,
            autoscaling={"maxReplicas": 3},
        )
    ).spec

    assert spec == LlamaServerSpec(
        model=Model(url="http://models.svc/a.gguf?v=2", sha256="aB" * 32),
        slots=8,
        context_per_slot=8192,
        gpu=Gpu(count=2, resource_name="nvidia.com/mig-3g.20gb", compute_arch="8.0"),
        resources=Resources(requests={"cpu": "500m"}, limits={"cpu": 1, "example.com/card": 1}),
        image="example.com/llama-server:1",
        replicas=0,
        autoscaling=Autoscaling(min_replicas=1, max_replicas=3),
    )


def test_a_deleted_server_is_recognized() -> None:
    raw = raw_server()
    raw["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"

    assert parsed(raw).deleting


def test_a_field_of_a_newer_schema_is_ignored() -> None:
    assert parsed(raw_server(drainTimeoutSeconds=5)).spec == parsed(raw_server()).spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"slots": 0}, "spec.slots: Input should be greater than or equal to 1"),
        ({"slots": "4"}, "spec.slots: Input should be a valid integer"),
        (
            {"model": {"url": "ftp://models.example.com/model.gguf"}},
            (
                "spec.model.url: must start with http:// or https:// and a host, such as "
                "https://example.com/model.gguf, or with hf://, s3://, oci://, pvc:// or image://"
            ),
        ),
        ({"model": {}}, "spec.model.url: Field required"),
        (
            {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
            "spec.autoscaling: maxReplicas must be at least minReplicas",
        ),
        (
            {"gpu": {"computeArch": "ampere"}},
            (
                "spec.gpu.computeArch: must be a compute capability such as 7.5, 75, sm_75 or "
                "compute_75, or auto"
            ),
        ),
        (
            {"gpu": {"resourceName": "amd.com/gpu", "computeArch": "auto"}},
            (
                "spec.gpu: computeArch must not be set unless resourceName is in nvidia.com/: only "
                "NVIDIA's GPUs have compute capabilities; for other nodes set "
                "placement.nodeSelector"
            ),
        ),
        (
            {"resources": {"requests": {"memory": "512m"}}},
            (
                "spec.resources.requests: memory must be at least 1Mi: the suffix m means "
                "thousandths of a byte; instead of 512m, did you mean 512Mi?"
            ),
        ),
        (
            {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}},
            "spec.resources: requests.cpu must be at most limits.cpu",
        ),
        (
            {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
            "spec.resources: requests.memory must be at most limits.memory",
        ),
        (
            {"resources": {"requests": {"a.b/c": 2}, "limits": {"a.b/c": 1}}},
            (
                "spec.resources: requests must be at most limits, also of resources other than cpu "
                "and memory"
            ),
        ),
        (
            {"image": "example.com/llama server:1"},
            (
                "spec.image: must be the name of an image, without spaces, such as "
                "ghcr.io/ggml-org/llama.cpp:server-cuda"
            ),
        ),
        (
            {"slots": 0, "replicas": -1},
            (
                "spec.slots: Input should be greater than or equal to 1; "
                "spec.replicas: Input should be greater than or equal to 0"
            ),
        ),
    ],
)
def test_an_invalid_spec_is_rejected_with_its_field_and_what_is_allowed(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parsed(raw_server(**spec))

    assert str(caught.value) == message


def test_a_missing_spec_is_rejected() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec\.model: Field required$"):
        parsed({"metadata": {"name": "chat"}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", "metadata.name: must be 1 to 63 lower-case letters"),
        ("a.b", "metadata.name: must be 1 to 63 lower-case letters"),
        ("a" * 64, "metadata.name: must be 1 to 63 lower-case letters"),
        ("chat-replicas", "metadata.name: must not end with '-replicas' or '-workers'"),
        ("chat-workers", "metadata.name: must not end with '-replicas' or '-workers'"),
    ],
)
def test_a_name_that_no_service_can_have_is_rejected(name: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        parsed(raw_server(name))
