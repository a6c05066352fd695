"""A metadata service or a pod is no model host; a Service of the server's own namespace is."""

import pytest

from servers import QUICK, Server, spec
from stack import MODELS_NAMESPACE, service_at


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[::ffff:169.254.169.254]"])
def test_a_metadata_service_is_never_connected_to(server: Server, host: str) -> None:
    server.apply(spec(f"http://{host}/latest/meta-data/model.gguf"))

    message = server.wait_for_reason("Ready", "ModelAddressNotAllowed")

    assert "metadata address, which no model host may have" in message


def test_a_private_address_needs_the_chart_or_a_service_of_the_namespace(server: Server) -> None:
    pods = server.cluster.get(
        "pods", "-l=app.kubernetes.io/name=models", namespace=MODELS_NAMESPACE
    )
    address = pods["items"][0]["status"]["podIP"]
    server.apply(spec(f"http://{address}:8080/quick.gguf"))

    message = server.wait_for_reason("Ready", "ModelAddressNotAllowed")

    assert f"its address {address} is not public" in message
    assert "modelDownloads.allowedAddressRanges" in message
    server.cluster.apply(*service_at("mirror", address, 8080), namespace=server.namespace)
    server.ready(spec(f"http://mirror.{server.namespace}.svc:8080/quick.gguf"))
    # In a range that the chart allows.
    server.ready(spec(QUICK))
