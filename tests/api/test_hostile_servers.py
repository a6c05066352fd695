"""Servers that one tenant makes as large or as deep as the API server stores, beside another's."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from apiserver import ApiServer
from llamaservers import raw_server
from operator_process import (
    OperatorProcess,
    create,
    eventually,
    get,
    operator_kubeconfig,
    operator_process,
    rbac_manifests,
)

PATH = "/apis/slotkeeper.dev/v1alpha1/namespaces/{}/llamaservers"
HOSTILE = "hostile"
DEEP = 9_980
"""Levels of one value: the API server reads up to 10,000."""
LARGE = 120
LARGE_BYTES = 1_400_000


@pytest.fixture(scope="module")
def kubeconfig(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    create(api, *rbac_manifests())
    create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOSTILE}})
    return operator_kubeconfig(api, tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def hostile(api: ApiServer, kubeconfig: Path) -> Iterator[Path]:
    yield kubeconfig
    assert api.client.delete(PATH.format(HOSTILE)).is_success
    api.kubectl("delete", "llama", "stranger")
    api.kubectl("delete", "deployments,services", "--selector", "slotkeeper.dev/server=stranger")


def test_a_server_of_any_depth_ends_no_operator(
    api: ApiServer, hostile: Path, tmp_path: Path
) -> None:
    with operator_process(hostile, tmp_path / "log") as operator:
        eventually(lambda: "slotkeeper_operator" in _metrics(operator))
        _post(api, "deep-while-watched", _deep())

        _eventually_serves_a_stranger(api, operator)
        _eventually_invalid(api, "deep-while-watched", "nested")
    _delete_stranger(api)
    with operator_process(hostile, tmp_path / "log-of-a-restart") as operator:
        _eventually_serves_a_stranger(api, operator)


def test_servers_of_any_size_take_little_memory_and_delay_no_other(
    api: ApiServer, hostile: Path, tmp_path: Path
) -> None:
    for number in range(LARGE):
        _post(api, f"large-{number}", _large())

    started = time.monotonic()
    with operator_process(hostile, tmp_path / "log") as operator:
        _eventually_serves_a_stranger(api, operator, seconds=120)
        took = time.monotonic() - started
        print(f"a stranger's server after {took:.1f} s, {_peak_megabytes(operator)} MB")
        _eventually_invalid(api, "large-0", "bytes")
        rss = _peak_megabytes(operator)

    print(f"peak memory {rss} MB")
    assert rss < 400


def _deep() -> str:
    """A volume, as JSON."""
    return '{"name": "deep", "a": ' + '{"a":' * DEEP + "{}" + "}" * DEEP + "}"


def _large() -> str:
    """A volume, as JSON."""
    filler = {f"a{number}": "b" * 50 for number in range(LARGE_BYTES // 60)}
    return json.dumps({"name": "large", "configMap": filler})


def _post(api: ApiServer, name: str, volume: str) -> None:
    raw = raw_server(name, gpu={"count": 0}, podTemplate={"volumes": ["VOLUME"]})
    raw["metadata"] = {"name": name, "namespace": HOSTILE}
    response = api.client.post(
        PATH.format(HOSTILE),
        content=json.dumps(raw).replace('"VOLUME"', volume),
        headers={"Content-Type": "application/json"},
    )
    assert response.is_success, response.text[:1000]


def _eventually_serves_a_stranger(
    api: ApiServer, operator: OperatorProcess, seconds: float = 15
) -> None:
    create(api, raw_server("stranger", gpu={"count": 0}))

    def served() -> bool:
        assert operator.process.poll() is None, operator.log_text()[-3000:]
        return "conditions" in get(api, "llama", "stranger").get("status", {})

    eventually(served, seconds=seconds)


def _delete_stranger(api: ApiServer) -> None:
    assert api.kubectl("delete", "llama", "stranger").returncode == 0


def _eventually_invalid(api: ApiServer, name: str, reason: str) -> None:
    def reported() -> bool:
        found = api.client.get(f"{PATH.format(HOSTILE)}/{name}/status").text
        return '"InvalidSpec"' in found and reason in found

    eventually(reported, seconds=60)


def _metrics(operator: OperatorProcess) -> str:
    try:
        return operator.metrics_text()
    except httpx.TransportError:
        return ""


def _peak_megabytes(operator: OperatorProcess) -> int:
    status = Path(f"/proc/{operator.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024
