"""The operator is not on the request path, and one that comes back writes nothing."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import SYSTEM_NAMESPACE, Cluster

OPERATOR = ("-n", SYSTEM_NAMESPACE)


@pytest.fixture
def operator_returns(cluster: Cluster) -> Iterator[None]:
    """Whatever happens, the tests after this one find an operator."""
    yield
    _scale_operator(cluster, 1)


@pytest.mark.usefixtures("operator_returns")
def test_requests_are_served_while_the_operator_is_down(server: Server) -> None:
    server.ready(spec())
    _scale_operator(server.cluster, 0)

    endings = server.chat(requests=4)

    assert [ending for ending in endings if not ending["answered"]] == []


@pytest.mark.usefixtures("operator_returns")
def test_an_operator_that_comes_back_writes_nothing(server: Server) -> None:
    server.ready(spec())
    server.wait("jsonpath={.status.slots.total}=2")
    before = _versions(server)

    _scale_operator(server.cluster, 0)
    _scale_operator(server.cluster, 1)
    # The newcomer has been through all servers once it has seen a new one to the end.
    other = Server(server.cluster, server.namespace, "other")
    other.ready(spec())

    assert _versions(server) == before


def _scale_operator(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl(*OPERATOR, "scale", "deployment/slotkeeper", f"--replicas={replicas}")
    if replicas:
        cluster.kubectl(*OPERATOR, "rollout", "status", "deployment/slotkeeper")
    else:
        selector = ("-l", "app.kubernetes.io/name=slotkeeper")
        cluster.kubectl(*OPERATOR, "wait", "--for=delete", "pod", *selector, "--timeout=60s")


def _versions(server: Server) -> dict[str, str]:
    kinds = "deployments,services,serviceaccounts,roles,rolebindings"
    objects = [*server.children(kinds), server.get()]
    return {
        f"{found['kind']}/{found['metadata']['name']}": found["metadata"]["resourceVersion"]
        for found in objects
    }
