"""Selection of the image of llama-server."""

from dataclasses import replace
from typing import Any

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import replicas

TABLE = {"7.5": "llama-server:turing", "8.6": "llama-server:ampere", "8.7": "llama-server:ampere"}
VENDORS = {"nvidia": "llama-server:cuda", "amd": "llama-server:rocm", "example.com": "own:1"}
AMD = {"count": 1, "resourceName": "amd.com/gpu"}


def image(table: dict[str, str], vendors: dict[str, str], **spec: Any) -> str:
    images = replace(IMAGES, by_compute_arch=table, by_vendor=vendors)
    pod = replicas.deployment(server(**spec), 1, images)["spec"]["template"]["spec"]
    reference: str = pod["containers"][0]["image"]
    return reference


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ({"gpu": {"computeArch": "sm_75"}}, "llama-server:turing"),
        ({"gpu": {"computeArch": "8.0"}}, "llama-server:cuda"),
        ({"gpu": {"count": 2}}, "llama-server:cuda"),
        ({"gpu": {"resourceName": "nvidia.com/gpu.shared"}}, "llama-server:cuda"),
        ({"gpu": {"count": 0}}, IMAGES.llama_server),
        ({"gpu": {"computeArch": "7.5"}, "image": "mine"}, "mine"),
        ({"gpu": AMD}, "llama-server:rocm"),
        ({"gpu": {"resourceName": "example.com/card"}}, "own:1"),
    ],
)
def test_a_replica_runs_the_image_built_for_its_gpus(spec: dict[str, Any], selected: str) -> None:
    assert image(TABLE, VENDORS, **spec) == selected


@pytest.mark.parametrize(
    ("arches", "selected", "required"),
    [
        (("7.5",), "llama-server:turing", ("7.5",)),
        (("8.6",), "llama-server:ampere", ("8.6", "8.7")),
        (("8.6", "8.7"), "llama-server:ampere", ("8.6", "8.7")),
        (("7.5", "8.6"), "llama-server:cuda", ()),
        (("7.5", "9.0"), "llama-server:cuda", ()),
        ((), "llama-server:cuda", ()),
    ],
)
def test_a_server_for_several_compute_capabilities_gets_the_image_that_they_share(
    arches: tuple[str, ...], selected: str, required: tuple[str, ...]
) -> None:
    images = replace(IMAGES, by_compute_arch=TABLE, by_vendor=VENDORS)

    shared = images.arches_sharing_image(arches)

    assert shared == required
    auto = replace(server(gpu={"computeArch": "auto"}), chosen_arches=shared)
    assert images.llama_server_for(auto) == selected


@pytest.mark.parametrize(
    "gpu",
    [{}, {"computeArch": 8.0}, AMD, {"resourceName": "gpu.intel.com/xe"}],
)
def test_without_an_image_for_its_gpus_a_server_never_gets_that_for_cpus(
    gpu: dict[str, Any],
) -> None:
    images = replace(IMAGES, by_compute_arch=TABLE, by_vendor={})

    assert not images.has_llama_server_for(server(gpu=gpu))
    with pytest.raises(LookupError):
        images.llama_server_for(server(gpu=gpu))
    assert images.has_llama_server_for(server(gpu=gpu, image="mine"))
