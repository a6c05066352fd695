"""The operator is not on the request path, and one that comes back writes nothing."""

from operator_pods import operators
from servers import ALL_KINDS, Server, spec


def test_requests_are_served_while_the_operator_is_down(server: Server) -> None:
    server.ready(spec())

    with operators(server.cluster, 0):
        endings = server.chat(requests=4)

    assert [ending for ending in endings if not ending["answered"]] == []


def test_an_operator_that_comes_back_writes_nothing(server: Server) -> None:
    server.ready(spec())
    server.wait("jsonpath={.status.slots.total}=2")
    before = _versions(server)

    with operators(server.cluster, 0):
        pass
    # The newcomer has been through all servers once it has seen a new one to the end.
    other = Server(server.cluster, server.namespace, "other")
    other.ready(spec())

    assert _versions(server) == before


def test_a_server_deleted_meanwhile_leaves_nothing(server: Server) -> None:
    server.ready(spec())

    with operators(server.cluster, 0):
        server.kubectl("delete", "llamaserver", server.name, "--timeout=30s")
        server.wait_until_gone()

    assert server.children(ALL_KINDS) == []


def _versions(server: Server) -> dict[str, str]:
    kinds = ALL_KINDS.removesuffix(",pods")
    objects = [*server.children(kinds), server.get()]
    return {
        f"{found['kind']}/{found['metadata']['name']}": found["metadata"]["resourceVersion"]
        for found in objects
    }
