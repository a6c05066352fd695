"""On a claim each file is downloaded once, whatever replicas come and go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import QUICK, Server, Spec, spec
from stack import MODELS_NAMESPACE


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """A volume that all pods of the node may share, and the claim to it."""
    # Kubernetes sets no owner on the folders of a node.
    tmp_path.chmod(0o777)
    volume = f"models-of-{server.namespace}"
    server.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "claimRef": {"namespace": server.namespace, "name": "models"},
                "hostPath": {"path": str(tmp_path)},
            },
        }
    )
    server.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        namespace=server.namespace,
    )
    yield "models"
    server.cluster.kubectl("delete", "persistentvolume", volume, "--wait=false")


def test_a_file_on_a_claim_is_downloaded_once(server: Server, claim: str) -> None:
    # A name in the access log that no other test asks for.
    url = f"{QUICK}?for={server.namespace}"
    shared: Spec = spec(replicas=2) | {"model": {"url": url, "cache": {"claimName": claim}}}

    server.ready(shared)
    server.wait("jsonpath={.status.readyReplicas}=2")
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")

    log = server.cluster.kubectl("-n", MODELS_NAMESPACE, "logs", "deployment/models", "--tail=-1")
    assert log.count(f"GET /quick.gguf?for={server.namespace} ") == 1
    [ending] = server.chat()
    assert ending["answered"], ending
