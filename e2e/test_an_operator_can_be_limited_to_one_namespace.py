"""An operator that may look after one namespace only serves there, and nowhere else."""

from collections.abc import Iterator

import pytest

from operator_pods import operators
from servers import Server, spec
from stack import Cluster, install_operator


@pytest.fixture
def own_operator(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A second release, with rights in this namespace alone; the other operator rests."""
    release = "own"
    with operators(cluster, 0):
        only_here = (
            *("--set", f"watchNamespace={namespace}"),
            *("--set", "crds.enabled=false", "--set", "rbac.aggregate=false"),
        )
        install_operator(cluster, release, namespace, *only_here)
        yield release
        cluster.call("helm", "uninstall", release, "--namespace", namespace, "--wait")


@pytest.mark.usefixtures("own_operator")
def test_one_namespace_is_enough(cluster: Cluster, server: Server) -> None:
    elsewhere = Server(cluster, "default", "not-looked-after")
    elsewhere.apply(spec())

    server.ready(spec())

    assert server.chat()[0]["answered"]
    assert "status" not in elsewhere.get()
    elsewhere.kubectl("delete", "llamaserver", elsewhere.name)
