"""The operator as its own process, with kopf and the permissions that the chart grants."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer
from llamaservers import raw_server
from operator_process import (
    OperatorProcess,
    create,
    eventually,
    get,
    lease_holder,
    operator_kubeconfig,
    operator_process,
    rbac_manifests,
)


@pytest.fixture(scope="module")
def running(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    create(api, *rbac_manifests())
    with operator_process(operator_kubeconfig(api, folder), folder / "log") as operator:
        eventually(lambda: lease_holder(api))
        yield operator


@pytest.fixture
def server(api: ApiServer, running: OperatorProcess) -> Iterator[str]:
    """A server that the operator has reconciled."""
    assert running.process.poll() is None, running.log_text()
    name = "watched"
    create(api, raw_server(name, gpu={"count": 0}))
    eventually(lambda: "conditions" in get(api, "llama", name).get("status", {}))
    yield name
    api.kubectl("delete", "llama", name)
    # This API server runs without a garbage collector.
    kinds = "deployments,services,serviceaccounts,roles,rolebindings"
    api.kubectl("delete", kinds, "--selector", f"slotkeeper.dev/server={name}")


def test_the_permissions_of_the_chart_are_sufficient(running: OperatorProcess, server: str) -> None:
    log = running.log_text()

    assert "orbidden" not in log, log
    assert server not in log or "level=ERROR" not in log


def test_a_deleted_service_is_recreated_within_seconds(api: ApiServer, server: str) -> None:
    uid = get(api, "service", server)["metadata"]["uid"]

    api.kubectl("delete", "service", server)

    eventually(lambda: get(api, "service", server), seconds=5)
    assert get(api, "service", server)["metadata"]["uid"] != uid


def test_a_scaled_deployment_is_corrected_within_seconds(api: ApiServer, server: str) -> None:
    deployment = f"deployment/{server}-replicas"

    api.kubectl("scale", deployment, "--replicas=3")

    eventually(lambda: get(api, deployment)["spec"]["replicas"] == 1, seconds=5)


def test_a_scaled_server_gets_and_keeps_its_replicas(api: ApiServer, server: str) -> None:
    scaled = api.kubectl("scale", f"llama/{server}", "--replicas=3")
    assert scaled.returncode == 0, scaled.stderr

    deployment = f"deployment/{server}-replicas"
    eventually(lambda: get(api, deployment)["spec"]["replicas"] == 3, seconds=5)
    eventually(lambda: get(api, "llama", server)["status"]["observedGeneration"] == 2)
    stored = get(api, "llama", server, "--show-managed-fields")
    assert stored["spec"]["replicas"] == 3
    assert stored["status"]["scaling"]["reason"] == "Manual"
    # Users and scalers write the spec at any time, so the operator must own no field of it.
    managed = stored["metadata"]["managedFields"]
    assert "slotkeeper" not in {
        entry["manager"] for entry in managed if "f:spec" in entry["fieldsV1"]
    }
    assert "slotkeeper" in {entry["manager"] for entry in managed}


def test_kopf_adds_no_finalizer_or_annotation_to_a_server(api: ApiServer, server: str) -> None:
    metadata = get(api, "llama", server)["metadata"]

    assert "finalizers" not in metadata
    assert not [key for key in metadata.get("annotations", {}) if "kopf" in key]


@pytest.mark.usefixtures("running")
def test_a_standby_operator_exits_on_sigterm(api: ApiServer, tmp_path: Path) -> None:
    leader = lease_holder(api)
    with operator_process(operator_kubeconfig(api, tmp_path), tmp_path / "log") as standby:
        eventually(lambda: "waiting for lease" in standby.log_text())

        standby.process.terminate()

        assert standby.process.wait(timeout=5) == 0, standby.log_text()
    assert lease_holder(api) == leader


def test_an_operator_releases_its_lease_on_sigterm(
    api: ApiServer, running: OperatorProcess
) -> None:
    began = time.monotonic()
    assert running.stop() == 0, running.log_text()

    # So the next leader need not wait until the Lease expires.
    assert time.monotonic() - began < 3
    assert lease_holder(api) == ""
