"""A model on a hub is downloaded by its quantization, and a gated one with a token."""

import hashlib

import pytest

from model_sources import ModelSources, Protected, create_secret, published
from servers import Server
from source_examples import HUB, on_hub
from stack import ROOT


@pytest.fixture
def hub(model_sources: ModelSources) -> Protected:
    """The hub."""
    return model_sources.hub


def test_a_gated_model_is_downloaded_by_its_quantization(server: Server, hub: Protected) -> None:
    create_secret(server, HUB, hub.entries)

    server.ready(on_hub(hub, ":Q8_0"))

    [result] = server.chat()
    assert result["completed"], result
    # The hub states it.
    digest = hashlib.sha256((ROOT / "build/models/quick.gguf").read_bytes()).hexdigest()
    assert server.get()["status"]["model"]["sha256"] == digest
    assert hub.token not in published(server)


def test_a_wrong_token_is_reported(server: Server, hub: Protected) -> None:
    create_secret(server, HUB, hub.entries | {"token": "PLANTED"})
    server.apply(on_hub(hub, "/Model-Q8_0.gguf@main"))

    server.wait_for_reason("Ready", "ModelForbidden")

    assert "PLANTED" not in published(server)


def test_a_quantization_that_the_hub_lacks_is_reported_with_its_files(
    server: Server, hub: Protected
) -> None:
    create_secret(server, HUB, hub.entries)
    server.apply(on_hub(hub, ":Q5_K_M"))

    message = server.wait_for_reason("Ready", "ModelNotFound")

    assert "Model-Q4_K_M.gguf, Model-Q8_0.gguf" in message
