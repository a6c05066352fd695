"""Images that `make images` pushes to a registry are pulled by the pods of a chart's release."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from operator_pods import operators
from provider.constants import REGISTRY, SERVICE_RANGE
from provider.prerequisites import docker_available
from registry import registry
from servers import Server, spec
from stack import ROOT, Cluster

pytestmark = pytest.mark.skipif(
    docker_available(), reason="a Docker daemon cannot push to a registry in the node's network"
)


@pytest.fixture(name="registry")
def running_registry(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry in the node's network."""
    with registry(cluster, tmp_path) as address:
        yield address


@pytest.fixture
def images(cluster: Cluster, registry: str) -> str:
    """The registry, with our images: built outside of the node's network, and pushed in it."""
    tool = f"CONTAINER_TOOL={ROOT}/e2e/cluster buildah"
    # As the other tests' image, whose layers are then used.
    command = ("make", "images", f"REGISTRY={registry}", "CPU_VARIANTS=OFF", tool)
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    cluster.call("run", *command, "PUSH=1")
    return registry


@pytest.fixture
def release(cluster: Cluster, images: str, namespace: str) -> Iterator[str]:
    """An operator of this namespace that is installed from the registry; the other has no pods."""
    name = "from-registry"
    with operators(cluster, 0):
        cluster.call(
            *("helm", "install", name, "charts/slotkeeper", "--namespace", namespace, "--wait"),
            *("--timeout", "3m", "--set", f"images.registry={images}"),
            *("--set", "images.pullPolicy=Always", "--set", f"watchNamespaces={{{namespace}}}"),
            # The models of the tests have an address of the cluster, in another namespace.
            *("--set", f"modelDownloads.allowedAddressRanges={{{SERVICE_RANGE}}}"),
            *("--set", "crds.enabled=false", "--set", "rbac.aggregate=false"),
        )
        yield name
        cluster.call("helm", "uninstall", name, "--namespace", namespace, "--wait")


@pytest.mark.usefixtures("release")
def test_the_chart_installs_from_a_registry(server: Server) -> None:
    server.ready(spec())

    assert server.chat()[0]["completed"]
    pods = server.cluster.get("pods", namespace=server.namespace)["items"]
    images = {
        container["image"].removeprefix(f"{REGISTRY}/slotkeeper/").partition(":")[0]
        for pod in pods
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    }
    assert images == {"operator", "balancer", "download", "llama-server"}
