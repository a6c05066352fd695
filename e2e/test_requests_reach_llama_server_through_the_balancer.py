"""After `kubectl apply` of a LlamaServer, a real llama-server responds through its balancer."""

import json

from servers import Server, spec


def test_requests_reach_llama_server_through_the_balancer(server: Server) -> None:
    server.ready(spec())

    [result] = server.chat(tokens=50)

    assert result["completed"], result
    assert result["tokens"] == 50


def test_kubectl_get_shows_slots_and_replicas(server: Server) -> None:
    server.ready(spec(replicas=2))
    server.wait("jsonpath={.status.slots.total}=4")

    header, row = server.kubectl("get", "llama").splitlines()

    columns = ["NAME", "READY", "REPLICAS", "SLOTS", "QUEUED", "MODEL", "AGE"]
    assert header.split() == columns
    assert row.split()[:6] == ["llama", "True", "2/2", "0/4", "0", "quick.gguf"]


def test_the_balancer_lists_the_server_name_as_its_model(server: Server) -> None:
    server.ready(spec())

    models = json.loads(server.cluster.read("run", "curl", "-sS", f"{server.url}/v1/models"))

    assert [model["id"] for model in models["data"]] == ["llama"]
