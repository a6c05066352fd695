"""Children go with their server, also when the operator is not there to see it."""

from servers import Server, spec

KINDS = "deployments,services,serviceaccounts,roles,rolebindings,pods"


def test_a_deleted_server_leaves_nothing(server: Server) -> None:
    server.ready(spec())
    assert server.get()["metadata"].get("finalizers", []) == []

    server.kubectl("delete", "llamaserver", server.name)
    selector = ("-l", f"slotkeeper.dev/server={server.name}")
    server.kubectl("wait", "--for=delete", KINDS, *selector, "--timeout=60s")

    assert server.children(KINDS) == []
