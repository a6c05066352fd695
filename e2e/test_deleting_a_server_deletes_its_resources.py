"""A server's resources are deleted with it, also while they are still being created."""

from servers import ALL_KINDS, Server, spec


def test_deleting_a_server_deletes_its_resources(server: Server) -> None:
    server.ready(spec())
    assert server.get()["metadata"].get("finalizers", []) == []

    server.kubectl("delete", "llamaserver", server.name)
    server.wait_until_deleted()

    assert server.children(ALL_KINDS) == []


def test_a_server_deleted_during_its_creation_leaves_no_resources(server: Server) -> None:
    for _ in range(5):
        server.apply(spec())
        server.kubectl("delete", "llamaserver", server.name)

    # When a newer server is Ready, the operator has processed all of these events.
    Server(server.cluster, server.namespace, "other").ready(spec())
    server.wait_until_deleted()

    assert server.children(ALL_KINDS) == []
