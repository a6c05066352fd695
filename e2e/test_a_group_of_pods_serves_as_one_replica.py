"""A model divided among pods by llama.cpp's RPC answers, scales and goes as one replica."""

from servers import SLOW, Server, spec


def test_a_group_of_pods_serves_as_one_replica(server: Server) -> None:
    group = spec(SLOW, workers={"count": 2})
    server.apply(group)
    server.wait("condition=Ready", 180)

    [ending] = server.chat(tokens=50)

    assert ending["answered"], ending
    assert ending["tokens"] == 50
    assert server.get()["status"]["readyReplicas"] == 1
    assert server.get()["status"]["slots"]["total"] == 2
    assert len(server.children("pods")) == 3 + 2  # with two balancers
    # As a single pod it serves again, and nothing of the group is left.
    server.apply(spec(SLOW))
    server.kubectl("wait", "--for=delete", "statefulsets", "-l", _of(server), "--timeout=90s")
    server.wait("condition=Ready", 120)
    assert server.chat()[0]["answered"]


def _of(server: Server) -> str:
    return f"slotkeeper.dev/server={server.name}"
