"""A model in a registry is downloaded by TLS with user and password, which appear nowhere."""

import pytest

from model_sources import ModelSources, Protected, create_secret, published, trust
from servers import Server, Spec, spec

SECRET = "registry"


@pytest.fixture
def registry(model_sources: ModelSources) -> Protected:
    """The registry."""
    return model_sources.registry


@pytest.fixture
def download(server: Server, model_sources: ModelSources) -> dict[str, object]:
    """`spec.model.download` that trusts the registry's certificate."""
    return trust(server, model_sources.authority)


def in_registry(registry: Protected, tag: str, download: dict[str, object]) -> Spec:
    model = {"url": f"{registry.url}/models/quick:{tag}", "download": download}
    return spec() | {"model": {**model, "tokenSecretRef": {"name": SECRET}}}


@pytest.mark.parametrize("tag", ["oras", "docker"])
def test_a_model_is_downloaded_from_an_artifact(
    server: Server, registry: Protected, download: dict[str, object], tag: str
) -> None:
    create_secret(server, SECRET, registry.entries)

    server.ready(in_registry(registry, tag, download))

    [result] = server.chat()
    assert result["completed"], result
    assert "CANARY" not in published(server)


def test_a_wrong_password_is_reported(
    server: Server, registry: Protected, download: dict[str, object]
) -> None:
    create_secret(server, SECRET, registry.entries | {"token": "reader:PLANTED"})
    server.apply(in_registry(registry, "oras", download))

    server.wait_for_reason("Ready", "ModelForbidden")

    assert "PLANTED" not in published(server)
