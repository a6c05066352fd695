"""Selection of the image of llama-server."""

from dataclasses import replace
from typing import Any

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import replicas

TABLE = {"7.5": "llama-server:turing", "default": "llama-server:cuda"}


def image(table: dict[str, str], **spec: Any) -> str:
    images = replace(IMAGES, by_compute_arch=table)
    pod = replicas.deployment(server(**spec), 1, images)["spec"]["template"]["spec"]
    reference: str = pod["containers"][0]["image"]
    return reference


@pytest.mark.parametrize(
    ("table", "spec", "selected"),
    [
        (TABLE, {"gpu": {"computeArch": "sm_75"}}, "llama-server:turing"),
        (TABLE, {"gpu": {"computeArch": "8.0"}}, "llama-server:cuda"),
        (TABLE, {"gpu": {"count": 2}}, "llama-server:cuda"),
        (TABLE, {"gpu": {"count": 0}}, IMAGES.llama_server),
        (TABLE, {"gpu": {"computeArch": "7.5"}, "image": "mine"}, "mine"),
        ({"7.5": "a"}, {"gpu": {"computeArch": "8.0"}}, IMAGES.llama_server),
        ({"7.5": "a"}, {}, IMAGES.llama_server),
        ({}, {"gpu": {"computeArch": "7.5"}}, IMAGES.llama_server),
    ],
)
def test_a_replica_runs_the_image_built_for_its_gpus(
    table: dict[str, str], spec: dict[str, Any], selected: str
) -> None:
    assert image(table, **spec) == selected
