"""Names, unknown fields, slots, replicas, images and resources that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from llamaservers import parsed, raw_server
from rejections import assert_rejected, is_accepted_by_the_operator, rejection
from slotkeeper.api.resource import InvalidSpec

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"slots": 0}, "spec.slots", "should be greater than or equal to 1"),
    ({"slots": -3}, "spec.slots", "should be greater than or equal to 1"),
    ({"slots": 257}, "spec.slots", "should be less than or equal to 256"),
    ({"slots": "4"}, "spec.slots", "must be of type integer"),
    ({"slots": 1.5}, "spec.slots", "must be of type integer"),
    ({"contextPerSlot": 255}, "spec.contextPerSlot", "from 256 to 16777216, or auto"),
    ({"contextPerSlot": 2**24 + 1}, "spec.contextPerSlot", "from 256 to 16777216, or auto"),
    ({"contextPerSlot": "all"}, "spec.contextPerSlot", "from 256 to 16777216, or auto"),
    ({"contextPerSlot": "4096"}, "spec.contextPerSlot", "from 256 to 16777216, or auto"),
    (
        {"contextPerSlot": "auto", "gpu": {"count": 0}},
        "spec",
        "contextPerSlot must not be auto if gpu.count is 0, or with embeddings",
    ),
    (
        {"contextPerSlot": "auto", "embeddings": {}},
        "spec",
        "contextPerSlot must not be auto if gpu.count is 0, or with embeddings",
    ),
    ({"replicas": -1}, "spec.replicas", "should be greater than or equal to 0"),
    ({"replicas": 1001}, "spec.replicas", "should be less than or equal to 1000"),
    ({"image": ""}, "spec.image", "should be at least 1 chars long"),
    (
        {"resources": {"limits": {"gpu": 1}}},
        "spec.resources.limits",
        (
            "must have only cpu, memory, ephemeral-storage, hugepages-SIZE and resources "
            "with a domain"
        ),
    ),
    (
        {"resources": {"limits": {"memory": "4 GB"}}},
        "spec.resources.limits",
        "must be a quantity such as 500m, 2 or 4Gi",
    ),
    (
        {"resources": {"requests": {"cpu": -1}}},
        "spec.resources.requests",
        "must be a quantity such as 500m, 2 or 4Gi",
    ),
    (
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
        "spec.resources",
        "requests.memory must be at most limits.memory",
    ),
    (
        {"resources": {"requests": {"example.com/card": 2}, "limits": {"example.com/card": 1}}},
        "spec.resources",
        "requests must be at most limits, also of resources other than cpu and memory",
    ),
    (
        {"resources": {"limits": {"memory": "512m"}}},
        "spec.resources.limits",
        "instead of 512m, did you mean 512Mi?",
    ),
    (
        {"image": "example.com/llama server:1"},
        "spec.image",
        "must be the name of an image, without spaces",
    ),
    (
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        "spec",
        "resources.limits must not contain gpu.resourceName: set gpu.count",
    ),
    (
        {"gpu": {"resourceName": "amd.com/gpu"}, "resources": {"requests": {"amd.com/gpu": 1}}},
        "spec",
        "resources.requests must not contain gpu.resourceName: set gpu.count",
    ),
    ({"model": {}}, "spec.model.url", "Required value"),
    ({"autoscaling": {}}, "spec.autoscaling.maxReplicas", "Required value"),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_spec_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(api, spec, field, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", 'metadata.name: Invalid value: "string": must be 1 to 63 lower-case letters'),
        ("a.b", "must be 1 to 63 lower-case letters, digits and '-', start with a letter"),
        ("a" * 64, "it is the name of the Service for clients"),
        ("chat-replicas", "must not end with '-replicas' or '-workers'"),
        ("chat-workers", "must not end with '-replicas' or '-workers'"),
    ],
)
def test_a_name_that_no_service_can_have_is_rejected_by_both(
    api: ApiServer, name: str, message: str
) -> None:
    error = rejection(api, raw_server(name))

    assert error is not None
    assert message in error
    assert not is_accepted_by_the_operator(raw_server(name))


@pytest.mark.parametrize("field", ["slot", "gpus", "maxReplicas"])
def test_an_unknown_field_is_rejected_by_name(api: ApiServer, field: str) -> None:
    unknown: dict[str, Any] = {field: 1}

    error = rejection(api, raw_server(**unknown))

    assert error is not None
    assert f'unknown field "spec.{field}"' in error


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(7.55, id="two decimals"),
        pytest.param(True, id="a boolean"),
        pytest.param({"major": 7}, id="an object"),
        pytest.param([7.5], id="a list"),
    ],
)
def test_the_operator_rejects_compute_archs_that_the_schema_cannot_exclude(
    api: ApiServer, arch: Any
) -> None:
    # The cost of accepting 7.5 without quotes: a CRD has no type "number or string".
    raw = raw_server(gpu={"computeArch": arch})

    assert rejection(api, raw) is None
    with pytest.raises(InvalidSpec, match="must be a compute capability such as"):
        parsed(raw)


def test_the_operator_rejects_a_compute_capability_that_no_gpu_has(api: ApiServer) -> None:
    # CEL cannot read a field without a type.
    raw = raw_server(gpu={"computeArch": "7.3"})

    assert rejection(api, raw) is None
    with pytest.raises(InvalidSpec, match=r"no GPU has compute capability 7\.3"):
        parsed(raw)
