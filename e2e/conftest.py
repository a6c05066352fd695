"""One cluster for all files here, and a namespace for each test."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from servers import Server
from stack import Cluster, up

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the cluster."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """The cluster `test`, with the operator on it. `make test` takes it down again."""
    cluster = Cluster("test")
    # Building images can take minutes: let it be seen.
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        up(cluster)
    return cluster


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Numbers that tell the namespaces of one run apart."""
    return count(1)


@pytest.fixture
def namespace(cluster: Cluster, numbers: Iterator[int]) -> Iterator[str]:
    """A fresh namespace that admits only pods of Pod Security's `restricted`."""
    name = f"e2e-{next(numbers)}"
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found")
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    # Not waited for: the next test need not stand still while pods end.
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def server(cluster: Cluster, namespace: str) -> Server:
    """A server that is yet to be applied."""
    return Server(cluster, namespace, "llama")
