"""The cache of workers: files that may be incomplete are never read."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from kubernetes_expansion import expanded
from llamaservers import IMAGES, server
from shell_program import program
from slotkeeper.desired.manifests import manifests

MINUTE = 60
START = 'echo "$@"; ls "$LLAMA_CACHE/rpc" 2>/dev/null || true'


def pods(cache: dict[str, Any] | None) -> list[Any]:
    """The pods of the first worker and of the leader."""
    workers = {"count": 1} | ({} if cache is None else {"cache": cache})
    found = manifests(server(workers=workers), 1, IMAGES)
    sets = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "StatefulSet"]
    assert len(sets) == 2
    return sets


def test_a_worker_without_a_cache_stores_nothing() -> None:
    worker, _ = pods(None)

    assert [volume["name"] for volume in worker["volumes"]] == ["tmp"]
    assert "--cache" not in worker["containers"][0]["command"]
    assert "env" not in worker["containers"][0]


@pytest.mark.parametrize(
    ("cache", "directory"), [({}, {}), ({"sizeLimit": "100Gi"}, {"sizeLimit": "100Gi"})]
)
def test_a_worker_stores_weights_on_the_disk_of_its_node(
    cache: dict[str, Any], directory: dict[str, str]
) -> None:
    worker, leader = pods(cache)
    [container] = worker["containers"]

    assert worker["volumes"][-1] == {"name": "rpc-cache", "emptyDir": directory}
    assert container["volumeMounts"][-1] == {"name": "rpc-cache", "mountPath": "/rpc-cache"}
    assert container["env"] == [{"name": "LLAMA_CACHE", "value": "/rpc-cache"}]
    assert container["command"][-1] == "--cache"
    assert "rpc-cache" not in str(leader)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache with a file of an hour ago, and one of a minute ago; and programs."""
    (tmp_path / "rpc").mkdir()
    for name, minutes in (("old", 60), ("new", 1)):
        write(tmp_path / "rpc" / name, minutes)
    return tmp_path


def write(path: Path, minutes_ago: float) -> None:
    path.write_bytes(b"weights")
    written = time.time() - minutes_ago * MINUTE
    os.utime(path, (written, written))


def start(folder: Path, rpc_server: str = START, sleep: str = "exit 1") -> list[str]:
    """Start a worker with these programs; return the lines that rpc-server prints."""
    program(folder / "ggml-rpc-server", rpc_server)
    program(folder / "sleep", sleep)
    environment = {"LLAMA_CACHE": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    worker, _ = pods({})
    script = expanded(worker["containers"][0]["command"][2], {})
    command = ["sh", "-c", script, "rpc-server", "--port", "1", "--cache"]
    run = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=10
    )
    return run.stdout.splitlines()


def test_files_are_kept_if_they_were_complete(folder: Path) -> None:
    write(folder / "complete", 2)

    assert start(folder) == ["--port 1 --cache", "old"]


def test_no_file_is_kept_if_none_was_known_to_be_complete(folder: Path) -> None:
    assert start(folder) == ["--port 1 --cache"]


def test_the_first_start_has_an_empty_cache(tmp_path: Path) -> None:
    assert start(tmp_path) == ["--port 1 --cache"]


def test_no_file_is_kept_in_an_image_without_find(folder: Path) -> None:
    write(folder / "complete", 2)
    program(folder / "find", "exit 127")

    assert start(folder) == ["--port 1 --cache"]


@pytest.mark.parametrize(
    ("minutes", "complete"),
    [pytest.param(6, True, id="long ago"), pytest.param(4, False, id="just now")],
)
def test_files_are_complete_once_none_has_been_written_for_minutes(
    tmp_path: Path, minutes: int, complete: bool
) -> None:
    (tmp_path / "rpc").mkdir()
    # While rpc-server runs, it receives a tensor, and the next minute passes.
    received = f'mkdir -p "{tmp_path}/rpc"; cp -p "{tmp_path}/tensor" "{tmp_path}/rpc/tensor"'
    write(tmp_path / "tensor", minutes)
    program(tmp_path / "wait-for", f'until [ -e "{tmp_path}/$1" ]; do :; done')
    rpc_server = f'{received}; touch "{tmp_path}/received"; wait-for passed'
    sleep = (
        f'[ ! -e "{tmp_path}/second" ] || {{ touch "{tmp_path}/passed"; exit 1; }}; '
        f'touch "{tmp_path}/second"; wait-for received'
    )

    start(tmp_path, rpc_server, sleep)

    assert (tmp_path / "complete").exists() is complete
