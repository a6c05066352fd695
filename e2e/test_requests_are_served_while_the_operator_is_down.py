"""The operator is not on the request path, and a restarted operator writes nothing."""

from operator_pods import operators
from servers import ALL_KINDS, Server, spec


def test_requests_are_served_while_the_operator_is_down(server: Server) -> None:
    server.ready(spec())

    with operators(server.cluster, 0):
        results = server.chat(requests=4)

    assert [result for result in results if not result["completed"]] == []


def test_a_restarted_operator_writes_nothing(server: Server) -> None:
    server.ready(spec())
    server.wait("jsonpath={.status.slots.total}=2")
    before = _versions(server)

    with operators(server.cluster, 0):
        pass
    # When a newer server is Ready, the new operator has reconciled all earlier ones.
    other = Server(server.cluster, server.namespace, "other")
    other.ready(spec())

    assert _versions(server) == before


def test_a_server_deleted_while_the_operator_is_down_leaves_no_resources(server: Server) -> None:
    server.ready(spec())

    with operators(server.cluster, 0):
        server.kubectl("delete", "llamaserver", server.name, "--timeout=30s")
        server.wait_until_deleted()

    assert server.children(ALL_KINDS) == []


def _versions(server: Server) -> dict[str, str]:
    kinds = ALL_KINDS.removesuffix(",pods")
    objects = [*server.children(kinds), server.get()]
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
        for each in objects
    }
