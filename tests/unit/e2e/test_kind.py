"""The kind provider's command lines, with stubs of kind, docker and kubectl that record them."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from provider.builds import modules

CLUSTER = Path(__file__).parents[3] / "e2e/cluster"

STUB = """\
#!/bin/sh
name=${0##*/}
echo "$name $*" >>"$STUBS/record"
case "$name $*" in
"kind get clusters") cat "$STUBS/clusters" 2>/dev/null || true ;;
"kind create cluster"*) echo slotkeeper-a >"$STUBS/clusters" ;;
"docker inspect --format={{.State.Running}}"*) cat "$STUBS/running" 2>/dev/null || echo true ;;
"docker inspect --format={{.Image}}"*) echo sha256:node ;;
"docker run"*) exit 7 ;;
"kubectl get nodes -o name") echo node/a ;;
"kubectl get node/a -o json") cat "$STUBS/node" ;;
esac
"""


@dataclass(frozen=True)
class Stubs:
    """A machine whose kind, docker and kubectl only record their command lines."""

    folder: Path
    environment: dict[str, str]

    def cluster(self, *arguments: str) -> tuple[int, list[str]]:
        """Run e2e/cluster; return its exit status and the recorded commands."""
        record = self.folder / "record"
        record.unlink(missing_ok=True)
        command = [str(CLUSTER), "--name", "a", "--provider", "kind", *arguments]
        result = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, check=False
        )
        return result.returncode, record.read_text().splitlines() if record.exists() else []

    @property
    def kubeconfig(self) -> Path:
        """Path of the cluster's kubeconfig."""
        return self.folder / "state/slotkeeper/a/kubeconfig"


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    programs = tmp_path / "bin"
    built = modules()["kubernetes"].output
    for folder in (programs, built):
        folder.mkdir(parents=True)
    for stub in (programs / "kind", programs / "docker", built / "kubectl"):
        stub.write_text(STUB)
        stub.chmod(0o755)
    (tmp_path / "node").write_text(json.dumps({"metadata": {"labels": {}}}))
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "STUBS": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    return Stubs(tmp_path, environment)


def test_up_creates_a_cluster_with_this_name(stubs: Stubs) -> None:
    status, calls = stubs.cluster("up")

    create = f"kind create cluster --wait=120s --kubeconfig={stubs.kubeconfig} --name=slotkeeper-a"
    assert status == 0
    assert calls[:2] == ["kind get clusters", create]


def test_a_second_up_creates_nothing(stubs: Stubs) -> None:
    stubs.cluster("up")

    status, calls = stubs.cluster("up")

    assert status == 0
    assert [call for call in calls if call.startswith("kind create")] == []


def test_up_restarts_a_stopped_node(stubs: Stubs) -> None:
    stubs.cluster("up")
    (stubs.folder / "running").write_text("false\n")

    _, calls = stubs.cluster("up")

    assert "docker start slotkeeper-a-control-plane" in calls


def test_down_deletes_the_cluster_and_its_state(stubs: Stubs) -> None:
    stubs.cluster("up")

    _, calls = stubs.cluster("down")

    assert calls == [f"kind delete cluster --kubeconfig={stubs.kubeconfig} --name=slotkeeper-a"]
    assert not stubs.kubeconfig.parent.exists()


def test_build_calls_docker(stubs: Stubs) -> None:
    arguments = ("--build-arg", "A=1", "--build-arg", "B=2")

    _, calls = stubs.cluster("build", "a/b:1", "images/b/Containerfile", ".", *arguments)

    expected = "--build-arg A=1 --build-arg B=2 --file images/b/Containerfile --tag a/b:1 ."
    assert calls == [f"docker build --quiet {expected}"]


def test_load_calls_kind(stubs: Stubs) -> None:
    _, calls = stubs.cluster("load", "a/b:1", "a/c:1")

    assert calls == ["kind load docker-image a/b:1 a/c:1 --name=slotkeeper-a"]


def test_arguments_of_kubectl_are_passed_through(stubs: Stubs) -> None:
    stubs.cluster("up")

    _, calls = stubs.cluster("kubectl", "-n", "x", "exec", "pod", "--name", "y", "--", "ls", "-l")

    assert calls == ["kubectl -n x exec pod --name y -- ls -l"]


def test_run_uses_the_network_of_the_node_and_the_files_of_the_host(stubs: Stubs) -> None:
    stubs.cluster("up")

    status, calls = stubs.cluster("run", "curl", "-sS", "http://10.96.0.1")

    assert status == 7
    assert calls[-1] == (
        "docker run --rm --interactive --network=container:slotkeeper-a-control-plane "
        f"--volume=/:/host --entrypoint=chroot --env=KUBECONFIG={stubs.kubeconfig} sha256:node "
        f"--userspec={os.getuid()}:{os.getgid()} /host /bin/sh -c "
        f'cd "$0" && exec "$@" {stubs.folder} curl -sS http://10.96.0.1'
    )


def test_fake_gpus_are_capacity_and_labels_of_the_node(stubs: Stubs) -> None:
    stubs.cluster("up")

    _, calls = stubs.cluster("gpus", "4", "--compute", "8.6")

    patches = [json.loads(call.partition("--patch=")[2]) for call in calls if "--patch=" in call]
    labels, status = patches[0]["metadata"]["labels"], patches[1]["status"]
    assert labels["nvidia.com/gpu.compute.major"] == "8"
    assert labels["nvidia.com/gpu.compute.minor"] == "6"
    assert status == {
        "capacity": {"nvidia.com/gpu": "4"},
        "allocatable": {"nvidia.com/gpu": "4"},
    }


def test_gpus_0_removes_the_fake_gpus(stubs: Stubs) -> None:
    stubs.cluster("up")

    _, calls = stubs.cluster("gpus", "0")

    patches = [json.loads(call.partition("--patch=")[2]) for call in calls if "--patch=" in call]
    assert set(patches[0]["metadata"]["labels"].values()) == {None}
    assert patches[1]["status"]["capacity"] == {"nvidia.com/gpu": None}


def test_up_restores_fake_gpus_after_a_restart(stubs: Stubs) -> None:
    labels = {
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.compute.major": "7",
        "nvidia.com/gpu.compute.minor": "5",
    }
    (stubs.folder / "node").write_text(json.dumps({"metadata": {"labels": labels}}))

    _, calls = stubs.cluster("up")

    assert any('"capacity": {"nvidia.com/gpu": "2"}' in call for call in calls)


def test_a_name_that_is_invalid_for_docker_is_rejected(stubs: Stubs) -> None:
    status, calls = stubs.cluster("--name", "No_Such", "up")

    assert status == 1
    assert calls == []


def test_run_without_a_cluster_fails(stubs: Stubs) -> None:
    status, calls = stubs.cluster("run", "true")

    assert status == 1
    assert calls == []
