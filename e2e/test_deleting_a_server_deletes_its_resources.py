"""Children go with their server, also when the server goes while it is being made."""

from servers import ALL_KINDS, Server, spec


def test_a_deleted_server_leaves_nothing(server: Server) -> None:
    server.ready(spec())
    assert server.get()["metadata"].get("finalizers", []) == []

    server.kubectl("delete", "llamaserver", server.name)
    server.wait_until_gone()

    assert server.children(ALL_KINDS) == []


def test_a_server_deleted_while_it_is_made_leaves_nothing(server: Server) -> None:
    for _ in range(5):
        server.apply(spec())
        server.kubectl("delete", "llamaserver", server.name)

    # The operator has been through all of it once it has seen a newer one to the end.
    Server(server.cluster, server.namespace, "other").ready(spec())
    server.wait_until_gone()

    assert server.children(ALL_KINDS) == []
