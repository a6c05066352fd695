"""Volumes of the node, for claims in a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import Server


@contextmanager
def node_volume(server: Server, claim: str, folder: Path, *, mode: str) -> Iterator[str]:
    """Offer a folder of the node as a volume to the claim of this name; yield the volume's name.

    `mode`: the access mode.
    """
    # Kubernetes does not change the owner of a hostPath folder.
    folder.chmod(0o777)
    volume = f"{claim}-of-{server.namespace}"
    server.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": [mode],
                "storageClassName": "",
                "claimRef": {"namespace": server.namespace, "name": claim},
                "hostPath": {"path": str(folder)},
            },
        }
    )
    try:
        yield volume
    finally:
        server.cluster.kubectl("delete", "persistentvolume", volume, "--wait=false")


@contextmanager
def node_claim(server: Server, claim: str, folder: Path) -> Iterator[str]:
    """Create a claim to a folder of the node, which all pods of the node can share; yield its
    name."""
    with node_volume(server, claim, folder, mode="ReadWriteMany") as volume:
        server.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": "",
                    "volumeName": volume,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
            namespace=server.namespace,
        )
        yield claim
