"""A LlamaGateway in a test."""

from typing import Any

from servers import Server

GATEWAY = "llm"
"""Name of the gateway."""


def deploy_gateway(server: Server, **spec: Any) -> str:
    """Apply a gateway in the server's namespace, wait until it serves, and return its URL."""
    manifest = {
        "apiVersion": "slotkeeper.dev/v1alpha1",
        "kind": "LlamaGateway",
        "metadata": {"name": GATEWAY},
        "spec": spec,
    }
    server.cluster.apply(manifest, namespace=server.namespace)
    server.kubectl("wait", "--for=condition=Ready", f"llamagateway/{GATEWAY}", "--timeout=120s")
    service = server.cluster.get("service", GATEWAY, namespace=server.namespace)
    return f"http://{service['spec']['clusterIP']}"
