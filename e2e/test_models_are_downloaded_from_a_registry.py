"""A model in a registry is downloaded by TLS with user and password, which appear nowhere."""

import pytest

from model_sources import ModelSources, Protected, create_secret, published, trust
from servers import Server
from source_examples import REGISTRY, in_registry


@pytest.fixture
def registry(model_sources: ModelSources) -> Protected:
    """The registry."""
    return model_sources.registry


@pytest.fixture(autouse=True)
def trusted(server: Server, model_sources: ModelSources) -> None:
    """The server may trust the registry's certificate."""
    trust(server, model_sources.authority)


@pytest.mark.parametrize("tag", ["oras", "docker"])
def test_a_model_is_downloaded_from_an_artifact(
    server: Server, registry: Protected, tag: str
) -> None:
    create_secret(server, REGISTRY, registry.entries)

    server.ready(in_registry(registry, tag))

    [result] = server.chat()
    assert result["completed"], result
    assert "CANARY" not in published(server)


def test_a_wrong_password_is_reported(server: Server, registry: Protected) -> None:
    create_secret(server, REGISTRY, registry.entries | {"token": "reader:PLANTED"})
    server.apply(in_registry(registry, "oras"))

    server.wait_for_reason("Ready", "ModelForbidden")

    assert "PLANTED" not in published(server)
