"""A model is downloaded from a web server with a private certificate and a token."""

import pytest

from model_sources import ModelSources, Protected, create_secret, published, trust
from servers import Server
from source_examples import WEB, on_web


@pytest.fixture
def web(model_sources: ModelSources) -> Protected:
    """The web server."""
    return model_sources.web


def test_a_split_model_is_downloaded_with_a_token_by_tls(
    server: Server, web: Protected, model_sources: ModelSources
) -> None:
    create_secret(server, WEB, web.entries)
    trust(server, model_sources.authority)

    server.ready(on_web(web, "split-00001-of-00003.gguf"))

    [result] = server.chat()
    assert result["completed"], result
    assert web.token not in published(server)
