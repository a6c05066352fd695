"""Each container has requests and limits, which a quota or a LimitRange accepts."""

from collections.abc import Iterator
from typing import Any

import pytest

from llamaservers import IMAGES, server
from slotkeeper.api import quantity
from slotkeeper.desired.manifests import manifests

SMALL = {"cpu": "100m", "memory": "128Mi"}
DEFAULT = {"requests": SMALL, "limits": {"cpu": "1", "memory": "256Mi"}}


def containers(**spec: Any) -> Iterator[Any]:
    for manifest in manifests(server(**spec), 1, IMAGES):
        pod = manifest["spec"]["template"]["spec"] if "template" in manifest.get("spec", {}) else {}
        yield from pod.get("initContainers", [])
        yield from pod.get("containers", [])


def resources(name: str, **spec: Any) -> Any:
    return next(each["resources"] for each in containers(**spec) if each["name"] == name)


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ({}, DEFAULT),
        ({"limits": {"example.com/card": 1}}, DEFAULT),
        (
            {"requests": {"cpu": 4}, "limits": {"cpu": 8, "memory": "8Gi"}},
            {"requests": {"cpu": "4"}, "limits": {"cpu": "8", "memory": "8Gi"}},
        ),
        (
            {"requests": {"cpu": 4}},
            {
                "requests": {"cpu": "4", "memory": "128Mi"},
                "limits": {"memory": "256Mi"},
            },
        ),
        (
            {"limits": {"ephemeral-storage": "1Gi"}},
            {"requests": SMALL, "limits": {**DEFAULT["limits"], "ephemeral-storage": "1Gi"}},
        ),
    ],
)
@pytest.mark.parametrize("name", ["download", "wait-for-workers"])
def test_an_init_container_has_the_resources_of_llama_server_or_else_defaults(
    name: str, main: Any, expected: Any
) -> None:
    assert resources(name, resources=main, workers={"count": 1}, gpu={"count": 2}) == expected


def test_the_resources_of_a_download_can_be_set() -> None:
    own = {"requests": {"cpu": 2}}
    model = {"url": "https://example.com/model.gguf", "download": {"resources": own}}

    assert resources("download", model=model, resources={"limits": {"cpu": 4}}) == {
        "requests": {"cpu": "2"}
    }


@pytest.mark.parametrize(
    "main", [{"limits": {"cpu": 4, "memory": "8Gi"}}, {"requests": {"cpu": 1, "memory": "1Gi"}}]
)
def test_an_init_container_makes_no_pod_larger(main: Any) -> None:
    found = {each["name"]: each["resources"] for each in containers(resources=main)}

    for kind in found["llama-server"]:
        for name, amount in found["download"].get(kind, {}).items():
            assert quantity.parse(amount) <= quantity.parse(found["llama-server"][kind][name])


def test_with_limits_for_llama_server_every_container_has_limits_of_cpu_and_memory() -> None:
    main = {"limits": {"cpu": 4, "memory": "8Gi"}}

    for container in containers(resources=main, workers={"count": 2}, gpu={"count": 1}):
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), container["name"]
