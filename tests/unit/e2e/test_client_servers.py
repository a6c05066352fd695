"""The servers of the tests with client libraries, which run on a cluster too."""

import pytest

from client_servers import GATEWAY, SERVERS, ClientServer, spec
from slotkeeper.api.gateway import LlamaGatewaySpec
from slotkeeper.api.server import LlamaServerSpec


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_each_is_a_valid_llama_server(server: ClientServer) -> None:
    LlamaServerSpec.model_validate(spec(server, "http://models.example/quick.gguf"))


def test_the_gateway_is_valid() -> None:
    LlamaGatewaySpec.model_validate(GATEWAY)
