"""An operator with permissions for one namespace manages the servers there, and no others."""

from collections.abc import Iterator

import pytest

from operator_pods import operators
from servers import Server, spec
from stack import Cluster, install_operator


@pytest.fixture
def own_operator(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A second release with permissions only in this namespace; the other one has no pods."""
    release = "own"
    with operators(cluster, 0):
        flags = (
            *("--set", f"watchNamespaces={{{namespace}}}"),
            *("--set", "crds.enabled=false", "--set", "rbac.aggregate=false"),
        )
        install_operator(cluster, release, namespace, *flags)
        yield release
        cluster.call("helm", "uninstall", release, "--namespace", namespace, "--wait")


@pytest.mark.usefixtures("own_operator")
def test_an_operator_can_be_limited_to_one_namespace(cluster: Cluster, server: Server) -> None:
    elsewhere = Server(cluster, "default", "not-managed")
    elsewhere.apply(spec())

    server.ready(spec())

    assert server.chat()[0]["completed"]
    assert "status" not in elsewhere.get()
    elsewhere.kubectl("delete", "llamaserver", elsewhere.name)
