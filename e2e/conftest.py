"""One cluster for all end-to-end tests, and a namespace for each test."""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

import model_sources as sources
from servers import Server
from stack import Cluster, up

HERE = Path(__file__).parent
CLUSTER_NAME = "SLOTKEEPER_TEST_CLUSTER"
"""Environment variable with the cluster's name; `test` if it is not set."""
TEST_LABEL = "slotkeeper.dev/test=end-to-end"
"""Of the namespaces of tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder: all of them need the cluster."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """The test cluster with the operator installed. It stays up; `make test` takes it down."""
    cluster = Cluster(os.environ.get(CLUSTER_NAME) or "test")
    # Building images can take minutes, so its progress is shown.
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        up(cluster)
    return cluster


@pytest.fixture(scope="session")
def names(cluster: Cluster) -> Iterator[str]:
    """Names of namespaces. No earlier run has used them, since logs and files of a node outlive a
    namespace. Namespaces of an interrupted run are deleted first."""
    cluster.kubectl("delete", "namespaces", f"--selector={TEST_LABEL}")
    run = uuid.uuid4().hex[:6]
    return (f"e2e-{run}-{number}" for number in count(1))


@pytest.fixture
def namespace(cluster: Cluster, names: Iterator[str]) -> Iterator[str]:
    """A new namespace that enforces Pod Security's `restricted` standard."""
    name = next(names)
    cluster.kubectl("create", "namespace", name)
    labels = ("pod-security.kubernetes.io/enforce=restricted", TEST_LABEL)
    cluster.kubectl("label", "namespace", name, *labels)
    yield name
    # Without waiting: the next test can start while the pods terminate.
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def server(cluster: Cluster, namespace: str) -> Server:
    """A server that is not yet applied."""
    return Server(cluster, namespace, "llama")


@pytest.fixture(scope="session")
def model_sources(cluster: Cluster, pytestconfig: pytest.Config) -> Iterator[sources.ModelSources]:
    """Servers of models, each of which starts when the first test needs it."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        with capture.global_and_fixture_disabled():
            servers = stack.enter_context(sources.model_sources(cluster))
        yield servers
