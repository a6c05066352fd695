"""The LlamaServers of e2e/source_examples.py are valid, and all that they need is beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

import fake_hub
from documents import DOCS, commands
from model_sources import ObjectStore, Protected
from slotkeeper.api.secret_hosts import hosts_in
from slotkeeper.api.server import LlamaServer
from source_examples import OUTPUT, REPOSITORY, command_line, examples
from stack import ROOT


@dataclass(frozen=True)
class FakeSources:
    authority: str
    object_store: ObjectStore
    registry: Protected
    hub: Protected
    web: Protected


SOURCES = FakeSources(
    authority="-----BEGIN CERTIFICATE-----\n",
    object_store=ObjectStore("http://s3.sources.svc", "s3.sources.svc", "id", "key"),
    registry=Protected("oci://registry.sources.svc", "registry.sources.svc", "user:password"),
    hub=Protected("http://hub.sources.svc", "hub.sources.svc", "token"),
    web=Protected("https://web.sources.svc", "web.sources.svc", "token"),
)


@pytest.fixture
def written() -> list[dict[str, Any]]:
    """What the file contains."""
    return list(yaml.safe_load_all(yaml.safe_dump_all(examples(SOURCES), sort_keys=False)))


def of_kind(kind: str, trees: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {tree["metadata"]["name"]: tree for tree in trees if tree["kind"] == kind}


def references(tree: object) -> Iterator[tuple[str, str]]:
    """The key and the name of each reference in a tree."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            if key.endswith("Ref"):
                yield key, child["name"]
            yield from references(child)


def test_each_server_is_valid(written: list[dict[str, Any]]) -> None:
    servers = of_kind("LlamaServer", written)

    schemes = {
        LlamaServer.parse(
            {**tree, "metadata": {"name": name, "namespace": "default", "uid": "0"}}
        ).spec.model.url.partition(":")[0]
        for name, tree in servers.items()
    }
    assert schemes == {"s3", "oci", "hf", "https"}


def test_what_a_server_refers_to_is_applied_before_it(written: list[dict[str, Any]]) -> None:
    kinds = [tree["kind"] for tree in written]
    config_maps, secrets = of_kind("ConfigMap", written), of_kind("Secret", written)

    assert kinds == ["ConfigMap", *["Secret"] * 4, *["LlamaServer"] * 4]
    for server in of_kind("LlamaServer", written).values():
        found = list(references(server["spec"]))
        assert found
        for key, name in found:
            assert name in (config_maps if key == "caConfigMapRef" else secrets)


def test_each_secret_lists_the_host_of_its_server(written: list[dict[str, Any]]) -> None:
    hosts = {
        name: hosts_in(tree["stringData"]["hosts"])
        for name, tree in of_kind("Secret", written).items()
    }

    assert hosts == {
        "store": {"s3.sources.svc"},
        "registry": {"registry.sources.svc"},
        "hub": {"hub.sources.svc"},
        "web": {"web.sources.svc"},
    }


def test_the_repository_is_that_of_the_hub() -> None:
    assert REPOSITORY == fake_hub.REPOSITORY


def test_the_documented_commands_are_valid() -> None:
    found = list(commands((DOCS / "test-cluster.md").read_text()))
    [start] = [each for each in found if "source_examples.py" in each]
    applied = [each.split()[-1] for each in found if "sources.yaml" in each]

    _, script, *arguments = start.split()
    assert (ROOT / script).exists()
    command_line().parse_args(arguments)
    assert applied
    assert {ROOT / path for path in applied} == {OUTPUT}
