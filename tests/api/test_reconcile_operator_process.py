"""The operator as it is run: its process, with kopf, and with the rights that the chart gives."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer
from llamaservers import raw_server
from operator_process import (
    OperatorProcess,
    as_the_operator,
    create,
    eventually,
    get,
    holder,
    operator_process,
    rights,
)


@pytest.fixture(scope="module")
def running(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    create(api, *rights())
    with operator_process(as_the_operator(api, folder), folder / "log") as operator:
        eventually(lambda: holder(api))
        yield operator


@pytest.fixture
def server(api: ApiServer, running: OperatorProcess) -> Iterator[str]:
    """A server that the operator has looked after."""
    assert running.process.poll() is None, running.said()
    name = "watched"
    create(api, raw_server(name, gpu={"count": 0}))
    eventually(lambda: "conditions" in get(api, "llama", name).get("status", {}))
    yield name
    api.kubectl("delete", "llama", name)
    # There is no garbage collector beside this API server.
    kinds = "deployments,services,serviceaccounts,roles,rolebindings"
    api.kubectl("delete", kinds, "--selector", f"slotkeeper.dev/server={name}")


def test_the_charts_rights_suffice(running: OperatorProcess, server: str) -> None:
    log = running.said()

    assert "orbidden" not in log, log
    assert server not in log or "level=ERROR" not in log


def test_what_somebody_deletes_comes_back_within_seconds(api: ApiServer, server: str) -> None:
    uid = get(api, "service", server)["metadata"]["uid"]

    api.kubectl("delete", "service", server)

    eventually(lambda: get(api, "service", server), seconds=5)
    assert get(api, "service", server)["metadata"]["uid"] != uid


def test_what_somebody_scales_is_put_right_within_seconds(api: ApiServer, server: str) -> None:
    deployment = f"deployment/{server}-replicas"

    api.kubectl("scale", deployment, "--replicas=3")

    eventually(lambda: get(api, deployment)["spec"]["replicas"] == 1, seconds=5)


def test_a_server_that_somebody_scales_gets_as_many_replicas_and_keeps_them(
    api: ApiServer, server: str
) -> None:
    done = api.kubectl("scale", f"llama/{server}", "--replicas=3")
    assert done.returncode == 0, done.stderr

    deployment = f"deployment/{server}-replicas"
    eventually(lambda: get(api, deployment)["spec"]["replicas"] == 3, seconds=5)
    eventually(lambda: get(api, "llama", server)["status"]["observedGeneration"] == 2)
    kept = get(api, "llama", server, "--show-managed-fields")
    assert kept["spec"]["replicas"] == 3
    assert kept["status"]["scaling"]["reason"] == "Manual"
    # Whoever scales may write it at any time: the operator has no part in what users say.
    managed = kept["metadata"]["managedFields"]
    assert "slotkeeper" not in {
        entry["manager"] for entry in managed if "f:spec" in entry["fieldsV1"]
    }
    assert "slotkeeper" in {entry["manager"] for entry in managed}


def test_kopf_leaves_nothing_on_a_users_resource(api: ApiServer, server: str) -> None:
    metadata = get(api, "llama", server)["metadata"]

    assert "finalizers" not in metadata
    assert not [key for key in metadata.get("annotations", {}) if "kopf" in key]


@pytest.mark.usefixtures("running")
def test_an_operator_that_waits_for_its_turn_ends_when_it_is_told_to(
    api: ApiServer, tmp_path: Path
) -> None:
    leader = holder(api)
    with operator_process(as_the_operator(api, tmp_path), tmp_path / "log") as standby:
        eventually(lambda: "waiting for lease" in standby.said())

        standby.process.terminate()

        assert standby.process.wait(timeout=5) == 0, standby.said()
    assert holder(api) == leader


def test_an_operator_that_is_told_to_end_gives_the_lease_back(
    api: ApiServer, running: OperatorProcess
) -> None:
    told = time.monotonic()
    assert running.end() == 0, running.said()

    # Whoever takes over waits for nothing.
    assert time.monotonic() - told < 3
    assert holder(api) == ""
