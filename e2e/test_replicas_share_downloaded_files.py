"""With a PersistentVolumeClaim each file is downloaded once for all replicas."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import QUICK, Server, Spec, spec
from stack import MODELS_NAMESPACE
from volumes import node_claim


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """Name of a claim to a volume that all pods of the node can share."""
    with node_claim(server, "models", tmp_path) as claim:
        yield claim


def test_a_file_on_a_claim_is_downloaded_once(server: Server, claim: str) -> None:
    # A URL that no other test requests, to be found in the access log.
    url = f"{QUICK}?for={server.namespace}"
    shared: Spec = spec(replicas=2) | {"model": {"url": url, "cache": {"claimName": claim}}}

    server.ready(shared)
    server.wait("jsonpath={.status.readyReplicas}=2")
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")

    log = server.cluster.kubectl("-n", MODELS_NAMESPACE, "logs", "deployment/models", "--tail=-1")
    assert log.count(f"GET /quick.gguf?for={server.namespace} ") == 1
    [result] = server.chat()
    assert result["completed"], result
