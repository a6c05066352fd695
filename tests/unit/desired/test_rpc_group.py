import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubernetes_expansion import expanded
from llamaservers import IMAGES, server
from shell_program import program
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.manifests import manifests
from slotkeeper.desired.rpc_group import LEAVE_SCRIPT, LISTENS_SCRIPT, WAIT_SCRIPT, WORK_SCRIPT

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
LISTENING = "   0: 00000000:C384 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532\n"
CONNECTED = "   1: 0A00F40A:C384 0B00F40A:9C40 01 00000000:00000000 00:00000000 00000000 65532\n"
CLOSING = "   1: 0A00F40A:C384 0B00F40A:9C40 06 00000000:00000000 00:00000000 00000000 65532\n"
ELSEWHERE = "   2: 0A00F40A:9C40 0B00F40A:C384 01 00000000:00000000 00:00000000 00000000 65532\n"


def children(of: LlamaServer, replicas: int = 2) -> dict[tuple[str, str], Any]:
    """Manifests by kind and name."""
    return {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in manifests(of, replicas, IMAGES)
    }


def leaders(**spec: Any) -> Any:
    """The StatefulSet of the leaders."""
    return children(server(**spec))["StatefulSet", "chat-replicas"]


def workers(**spec: Any) -> Any:
    """The StatefulSet of the first worker of each replica."""
    return children(server(**spec))["StatefulSet", "chat-worker-0"]


def container(of: Any) -> Any:
    """The only container of the pods of a StatefulSet."""
    (only,) = of["spec"]["template"]["spec"]["containers"]
    return only


TWO: dict[str, Any] = {"workers": {"count": 2}}


def test_a_group_has_a_leader_and_its_workers_instead_of_a_deployment() -> None:
    replicas = [key for key in children(server(**TWO)) if "balancer" not in key[1]]

    assert replicas == [
        ("Service", "chat"),
        ("Service", "chat-replicas"),
        ("NetworkPolicy", "chat-replicas"),
        ("PodDisruptionBudget", "chat-replicas"),
        ("Service", "chat-workers"),
        ("NetworkPolicy", "chat-workers"),
        ("PodDisruptionBudget", "chat-workers"),
        ("StatefulSet", "chat-worker-0"),
        ("StatefulSet", "chat-worker-1"),
        ("StatefulSet", "chat-replicas"),
    ]


def test_there_are_as_many_workers_of_each_number_as_leaders() -> None:
    sets = [
        manifest
        for (kind, _), manifest in children(server(**TWO), 5).items()
        if kind == "StatefulSet"
    ]

    assert [each["spec"]["replicas"] for each in sets] == [5, 5, 5]


def test_a_leader_finds_the_workers_of_its_own_number() -> None:
    leader = container(leaders(**TWO))

    assert leader["args"][leader["args"].index("--rpc") + 1] == (
        "chat-worker-0-$(SLOTKEEPER_REPLICA).chat-workers:50052,"
        "chat-worker-1-$(SLOTKEEPER_REPLICA).chat-workers:50052"
    )
    assert leader["env"][0] == {
        "name": "SLOTKEEPER_REPLICA",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}},
    }


def test_a_leader_waits_for_its_workers_once_it_has_the_model() -> None:
    model, wait = leaders(**TWO)["spec"]["template"]["spec"]["initContainers"]

    assert (model["name"], wait["name"]) == ("download", "wait-for-workers")
    assert wait["command"][-2:] == [
        "chat-worker-0-$(SLOTKEEPER_REPLICA).chat-workers",
        "chat-worker-1-$(SLOTKEEPER_REPLICA).chat-workers",
    ]


def test_a_worker_has_gpus_like_its_leader_and_memory_of_its_own() -> None:
    spec = {
        "gpu": {"count": 2},
        "resources": {"limits": {"memory": "32Gi"}},
        "workers": {"count": 1, "resources": {"limits": {"memory": "8Gi", "cpu": 2}}},
    }

    assert container(workers(**spec))["resources"] == {
        "requests": {"nvidia.com/gpu": "2"},
        "limits": {"memory": "8Gi", "cpu": "2", "nvidia.com/gpu": "2"},
    }
    assert container(workers(**spec))["command"][-2:] == ["--threads", "2"]


def test_a_worker_has_claims_and_groups_like_its_leader() -> None:
    template = {"name": "gpu", "resourceClaimTemplateName": "large"}
    spec = {**TWO, "gpu": {"resourceClaims": [template], "supplementalGroups": [44]}}

    for of in (leaders(**spec), workers(**spec)):
        pod = of["spec"]["template"]["spec"]
        assert pod["resourceClaims"] == [template]
        assert pod["containers"][0]["resources"] == {"claims": [{"name": "gpu"}]}
        assert pod["securityContext"]["supplementalGroups"] == [44]


def test_a_worker_without_resources_of_its_own_has_its_leaders() -> None:
    spec = {**TWO, "resources": {"requests": {"cpu": 2}}}

    assert container(workers(**spec))["resources"] == container(leaders(**spec))["resources"]


def test_a_worker_downloads_no_model() -> None:
    pod = workers(**TWO)["spec"]["template"]["spec"]

    assert "initContainers" not in pod
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]


def test_workers_go_onto_the_same_nodes_as_leaders() -> None:
    spec = {**TWO, "gpu": {"computeArch": 9.0, "minMemory": "70Gi"}}
    pods = [of["spec"]["template"]["spec"] for of in (leaders(**spec), workers(**spec))]

    assert pods[0]["affinity"] == pods[1]["affinity"]


def test_a_worker_has_what_the_user_adds_but_no_files_of_the_leader() -> None:
    template = workers(
        **TWO,
        podTemplate={
            "labels": {"team": "search"},
            "env": [{"name": "GGML_RPC_DEBUG", "value": "1"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        },
        placement={
            "nodeSelector": {"pool": "gpu"},
            "topologySpreadConstraints": [{"topologyKey": "zone"}],
        },
    )["spec"]["template"]
    pod = template["spec"]

    assert template["metadata"]["labels"]["team"] == "search"
    assert template["metadata"]["labels"]["slotkeeper.dev/component"] == "worker"
    assert pod["containers"][0]["env"] == [{"name": "GGML_RPC_DEBUG", "value": "1"}]
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["tmp"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert "topologySpreadConstraints" not in pod


def test_even_without_gpus_the_workers_have_the_layers() -> None:
    arguments = container(leaders(workers={"count": 1}, gpu={"count": 0}))["args"]

    assert arguments[arguments.index("--n-gpu-layers") + 1] == "999"


def test_only_leaders_reach_workers() -> None:
    group = children(server(**TWO))
    policy = group["NetworkPolicy", "chat-workers"]["spec"]
    (rule,) = policy["ingress"]

    worker = workers(**TWO)["spec"]["template"]["metadata"]["labels"]
    leader = leaders(**TWO)["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= worker.items()
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= leader.items()
    assert rule["ports"] == [{"protocol": "TCP", "port": 50052}]


def test_no_client_reaches_a_worker_through_the_replicas_service() -> None:
    group = children(server(**TWO))
    worker = workers(**TWO)["spec"]["template"]["metadata"]["labels"]

    selector = group["Service", "chat-replicas"]["spec"]["selector"]
    assert not selector.items() <= worker.items()


def test_each_set_selects_its_own_pods_alone() -> None:
    sets = [
        manifest for (kind, _), manifest in children(server(**TWO)).items() if kind == "StatefulSet"
    ]

    for each in sets:
        selector = each["spec"]["selector"]["matchLabels"].items()
        selected = [
            other
            for other in sets
            if selector <= other["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert selected == [each]


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        pytest.param({"workers": {"count": 3}}, True, id="one more worker"),
        pytest.param(
            {"workers": {"count": 2, "resources": {"limits": {"memory": "9Gi"}}}},
            True,
            id="larger workers",
        ),
        pytest.param({"replicas": 7}, False, id="more replicas"),
    ],
)
def test_a_leader_is_replaced_when_its_workers_are(change: dict[str, Any], replaced: bool) -> None:
    before, after = leaders(**TWO), leaders(**TWO | change)

    assert (before["spec"]["template"] != after["spec"]["template"]) is replaced


def test_what_concerns_the_leader_alone_replaces_no_worker() -> None:
    assert workers(**TWO) == workers(**TWO, kvCacheType="q8_0", extraArgs=["--mirostat", "1"])


def test_the_longest_name_leaves_room_for_the_numbers_of_pods() -> None:
    for (kind, name), manifest in children(server("a" * 63, **TWO)).items():
        if kind == "StatefulSet":
            assert len(name) <= 52
            assert len(f"{name}-999") <= 63
            assert len(manifest["spec"]["serviceName"]) <= 63


@pytest.mark.parametrize(
    ("connections", "listens"),
    [(LISTENING, True), (CONNECTED, False), (ELSEWHERE, False), ("", False)],
)
def test_a_worker_is_ready_when_it_listens(tmp_path: Path, connections: str, listens: bool) -> None:
    assert (run(LISTENS_SCRIPT, tmp_path, connections).returncode == 0) is listens


@pytest.mark.parametrize("connections", ["", LISTENING, LISTENING + CLOSING, ELSEWHERE])
def test_a_worker_without_a_leader_terminates_at_once(tmp_path: Path, connections: str) -> None:
    assert run(LEAVE_SCRIPT, tmp_path, connections).returncode == 0


def test_a_worker_stays_while_its_leader_is_connected(tmp_path: Path) -> None:
    # Simulates the kernel: the leader disconnects while the script waits.
    disconnects = LEAVE_SCRIPT.replace(
        "sleep 1", f"printf '{LISTENING}' > {tmp_path}/tcp; echo waited"
    )

    assert run(disconnects, tmp_path, CONNECTED).stdout == "waited\n"


def run(script: str, folder: Path, connections: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this table of IPv4 connections, and without one of IPv6."""
    (folder / "tcp").write_text(HEADER + connections)
    script = script.replace("/proc/net", str(folder))
    command = ["sh", "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)


@pytest.mark.parametrize("name", ["ggml-rpc-server", "rpc-server"])
def test_a_worker_ends_on_sigterm(tmp_path: Path, name: str) -> None:
    program(tmp_path / name, 'echo "$@"\nexec tail -f /dev/null')
    script = WORK_SCRIPT.replace("/app", str(tmp_path))

    command = ["sh", "-c", script, "rpc-server", "--port", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == "--port 1\n"
        worker.terminate()

        # The pipe is closed: rpc-server has exited too.
        assert worker.stdout.read() == ""
        assert worker.wait(10) != 0


def test_a_worker_exits_with_the_status_of_its_program(tmp_path: Path) -> None:
    program(tmp_path / "rpc-server", "exit 7")
    script = WORK_SCRIPT.replace("/app", str(tmp_path))

    assert subprocess.run(["sh", "-c", script, "rpc-server"], check=False).returncode == 7


def test_a_worker_without_the_program_reports_it(tmp_path: Path) -> None:
    script = WORK_SCRIPT.replace("/app", str(tmp_path))

    done = subprocess.run(["sh", "-c", script], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("the image has no ggml-rpc-server")


@pytest.fixture
def leader(tmp_path: Path) -> list[str]:
    """The command of a leader with two workers, whose image has no program but these."""
    spec = leaders(**TWO)["spec"]["template"]["spec"]["containers"][0]
    replica = {"SLOTKEEPER_REPLICA": "3"}
    shell, *command = [expanded(each, replica) for each in spec["command"]]
    program(tmp_path / "llama-server", 'echo "$@"')
    program(tmp_path / "getent", f'echo "$2" >>"{tmp_path}/resolved"')
    program(tmp_path / "timeout", 'echo "$5"; shift; exec "$@"')
    program(tmp_path / "bash", "")
    program(tmp_path / "sleep", "")
    return [shutil.which(shell) or shell, *command, "--model", "$x"]


def lead(leader: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Start the leader."""
    return subprocess.run(
        leader, check=False, capture_output=True, text=True, timeout=10, env={"PATH": str(folder)}
    )


HOSTS = ["chat-worker-0-3.chat-workers", "chat-worker-1-3.chat-workers"]


def test_a_leader_starts_once_it_reaches_its_workers(leader: list[str], tmp_path: Path) -> None:
    done = lead(leader, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [*HOSTS, "--model $x"]
    assert (tmp_path / "resolved").read_text().split() == HOSTS


def test_a_leader_waits_for_workers_that_are_away(leader: list[str], tmp_path: Path) -> None:
    # Its name does not resolve, then it is that of a worker that has ended, then it is ready.
    program(tmp_path / "getent", f'[ -e "{tmp_path}/one" ]')
    program(tmp_path / "bash", f'[ -e "{tmp_path}/two" ]')
    one, two = tmp_path / "one", tmp_path / "two"
    program(tmp_path / "sleep", f': >"{two}"; [ -e "{one}" ] || {{ : >"{one}"; /bin/rm "{two}"; }}')

    assert lead(leader, tmp_path).stdout.splitlines() == [
        f"waits for {HOSTS[0]}",
        *(HOSTS[0], HOSTS[0], HOSTS[1]),
        "--model $x",
    ]


def test_llama_server_reports_workers_that_accept_no_connection(
    leader: list[str], tmp_path: Path
) -> None:
    program(tmp_path / "bash", "exit 1")

    lines = lead(leader, tmp_path).stdout.splitlines()

    assert lines.count(HOSTS[0]) == 31
    assert lines[-1] == "--model $x"


def test_without_bash_the_name_of_a_worker_is_enough(leader: list[str], tmp_path: Path) -> None:
    (tmp_path / "bash").unlink()

    assert lead(leader, tmp_path).stdout == "--model $x\n"


def test_an_image_without_llama_server_on_its_path_reports_it(
    leader: list[str], tmp_path: Path
) -> None:
    (tmp_path / "llama-server").unlink()

    done = lead(leader, tmp_path)

    assert done.returncode == 127
    assert done.stderr == "the image has no llama-server on its PATH or in /app\n"


def test_a_leader_that_waits_ends_on_sigterm(leader: list[str], tmp_path: Path) -> None:
    program(tmp_path / "getent", "exit 2")

    with subprocess.Popen(
        leader, stdout=subprocess.PIPE, text=True, env={"PATH": str(tmp_path)}
    ) as waiting:
        assert waiting.stdout
        assert waiting.stdout.readline() == f"waits for {HOSTS[0]}\n"
        waiting.terminate()

        # By itself: as process 1 of its container, the default action would not apply.
        assert waiting.wait(10) >= 0


@pytest.mark.parametrize(("listening", "returncode"), [(True, 0), (False, 1)])
def test_bash_finds_out_whether_a_worker_listens(listening: bool, returncode: int) -> None:
    with socket.socket() as worker:
        worker.bind(("127.0.0.1", 0))
        if listening:
            worker.listen()
        script = WAIT_SCRIPT.replace("50052", str(worker.getsockname()[1]))
        connects = script[script.index("connects()") : script.index("for worker")]

        command = ["sh", "-c", f"{connects}connects 127.0.0.1"]
        assert subprocess.run(command, check=False, timeout=10).returncode == returncode


def test_no_two_sets_share_a_part() -> None:
    sets = [
        manifest for (kind, _), manifest in children(server(**TWO)).items() if kind == "StatefulSet"
    ]
    parts = [id(part) for each in sets for part in trees(each)]

    assert len(parts) == len(set(parts))


def trees(tree: Any) -> Iterator[Any]:
    """A tree and all trees in it."""
    if isinstance(tree, dict | list):
        yield tree
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from trees(part)
