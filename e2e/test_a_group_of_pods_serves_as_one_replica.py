"""Pods that share a model through llama.cpp's RPC serve, scale and are deleted as one replica."""

from servers import SLOW, Server, spec


def test_a_group_of_pods_serves_as_one_replica(server: Server) -> None:
    group = spec(SLOW, workers={"count": 2})
    server.apply(group)
    server.wait("condition=Ready", 180)

    [result] = server.chat(tokens=50)

    assert result["completed"], result
    assert result["tokens"] == 50
    assert server.get()["status"]["readyReplicas"] == 1
    server.wait("jsonpath={.status.slots.total}=2", 30)
    assert len(server.children("pods")) == 3 + 2  # with two balancers
    # Without workers a single pod serves, and the group is deleted.
    server.apply(spec(SLOW))
    server.kubectl("wait", "--for=delete", "statefulsets", "-l", _selector(server), "--timeout=90s")
    server.wait("condition=Ready", 120)
    assert server.chat()[0]["completed"]


def _selector(server: Server) -> str:
    return f"slotkeeper.dev/server={server.name}"
