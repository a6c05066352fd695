"""With the cache of the node each file is downloaded once for each node, and unused ones are
removed for others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import QUICK, SLOW, Server, Spec, spec
from stack import MODELS_NAMESPACE, SYSTEM_NAMESPACE, Cluster, install_operator

LIMIT = "48Mi"
"""For one slow model of 37 MiB, and small ones beside it."""


@pytest.fixture
def node_cache(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    values = {
        "enabled": "true",
        "path": str(tmp_path / "models"),
        "sizeLimit": LIMIT,
        # The disk of the test machine is not part of the test.
        "minFreePercent": "0",
    }
    flags = [f"--set=nodeCache.{name}={value}" for name, value in values.items()]
    install_operator(cluster, "slotkeeper", SYSTEM_NAMESPACE, *flags)
    yield
    install_operator(cluster, "slotkeeper", SYSTEM_NAMESPACE)


def cached(url: str, server: Server, replicas: int = 1) -> Spec:
    # A URL that no other test requests, to be found in the access log.
    return spec(replicas=replicas) | {
        "model": {"url": f"{url}?for={server.namespace}-{server.name}", "cache": {"node": True}}
    }


def downloads(server: Server, file: str) -> int:
    log = server.cluster.kubectl("-n", MODELS_NAMESPACE, "logs", "deployment/models", "--tail=-1")
    return log.count(f"GET /{file}?for={server.namespace}-{server.name} ")


def files(server: Server) -> list[str]:
    """The models in the folder of the namespace."""
    agent = ("-n", SYSTEM_NAMESPACE, "exec", "daemonset/slotkeeper-node-cache")
    listed = server.cluster.kubectl(*agent, "--", "ls", f"/cache/{server.namespace}")
    return [name for name in listed.split() if name.endswith(".gguf")]


def file_of(server: Server) -> str:
    """The name of the server's file, from the arguments of its replicas."""
    deployment = server.cluster.get(
        f"deployment/{server.name}-replicas", namespace=server.namespace
    )
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    path: str = container["args"][container["args"].index("--model") + 1]
    return path.rpartition("/")[2]


def allow_host_paths(server: Server) -> None:
    server.cluster.kubectl(
        *("label", "namespace", server.namespace, "--overwrite"),
        "pod-security.kubernetes.io/enforce=privileged",
    )


@pytest.mark.usefixtures("node_cache")
def test_a_model_is_on_the_node_before_the_first_request(server: Server) -> None:
    allow_host_paths(server)
    to_zero = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 600}
    server.ready(spec(autoscaling=to_zero) | {"model": cached(QUICK, server)["model"]})
    server.wait_for_reason("ModelReady", "Prefetched")
    before = downloads(server, "quick.gguf")
    replicas = server.get()["status"]["replicas"]
    on_node = files(server)

    [result] = server.chat()

    assert result["completed"], result
    assert on_node == [file_of(server)]
    assert replicas == 0
    # The header and the rest may be two requests; a replica adds none.
    assert before >= 1
    assert downloads(server, "quick.gguf") == before
    [job] = server.children("jobs")
    assert job["status"]["succeeded"] == 1


@pytest.mark.usefixtures("node_cache")
def test_models_of_a_node_are_shared_and_the_least_recently_used_ones_are_removed(
    server: Server,
) -> None:
    # The model server may have served an earlier run of this test.
    before = downloads(server, "quick.gguf")
    server.apply(cached(QUICK, server, replicas=2))
    message = server.wait_for_reason("ReplicasReady", "FailedCreate")
    assert "pod-security.kubernetes.io/enforce=privileged" in message
    allow_host_paths(server)

    server.wait("jsonpath={.status.readyReplicas}=2")
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")
    assert downloads(server, "quick.gguf") == before + 1

    # A large model that is used no more makes room for the next one; the small one is in use.
    first, second = (Server(server.cluster, server.namespace, name) for name in ("one", "two"))
    first.ready(cached(SLOW, first))
    unused = file_of(first)
    assert unused in files(server)
    first.kubectl("delete", "llamaserver", first.name)
    first.wait_until_deleted()
    second.ready(cached(SLOW, second))

    agent = ("-n", SYSTEM_NAMESPACE, "logs", "daemonset/slotkeeper-node-cache", "--follow")
    with server.cluster.start("kubectl", *agent) as log:
        assert log.stdout
        assert any(f"removed {server.namespace}/{unused[:20]}" in line for line in log.stdout)
        log.terminate()
    assert sorted(files(server)) == sorted([file_of(server), file_of(second)])
    [result] = server.chat()
    assert result["completed"], result
