"""`make run` runs the operator from the checkout against the current kubeconfig."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import run_operator
from apiserver import ApiServer, apiserver, free_port
from helm import Helm
from llamaservers import ROOT, raw_server
from operator_process import OperatorProcess, create, eventually, get

LEASE = ("lease", "slotkeeper-operator", "--namespace=default")


@pytest.fixture(scope="module")
def empty_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A kube-apiserver of its own: without the CRD, and without another operator's Lease."""
    with apiserver(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture
def running(empty_api: ApiServer, tmp_path: Path) -> Iterator[OperatorProcess]:
    port = free_port()
    flags = f"--health 127.0.0.1:0 --metrics 127.0.0.1:{port}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "run", f"ARGS={flags}"],
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(empty_api.kubeconfig)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    yield OperatorProcess(process, log, port)
    # The session contains make and the operator.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_make_run_creates_the_crd_leads_and_reconciles(
    empty_api: ApiServer, running: OperatorProcess
) -> None:
    eventually(lambda: get(empty_api, *LEASE), 60)
    create(empty_api, raw_server("chat", gpu={"count": 0}))

    eventually(lambda: "conditions" in get(empty_api, "llama", "chat").get("status", {}), 30)

    assert get(empty_api, *LEASE)["spec"]["holderIdentity"]
    assert get(empty_api, "deployment", "chat-replicas")
    assert running.reconciles() >= 1
    log = running.log_text()
    assert "run: kubeconfig context: test" in log
    assert "run: CRD llamaservers.slotkeeper.dev created" in log
    assert "run: CRD llamagateways.slotkeeper.dev created" in log
    # As Ctrl-C does.
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(timeout=20)
    assert get(empty_api, *LEASE)["spec"].get("holderIdentity", "") == ""


def test_its_default_images_are_those_of_the_chart(empty_api: ApiServer, tmp_path: Path) -> None:
    manifests = yaml.safe_load_all(Helm(empty_api, tmp_path).rendered())
    [deployment] = [each for each in manifests if each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]

    arguments = run_operator.chart_arguments()

    # Three images of our own, and one for the GPUs of each vendor.
    assert len(arguments) == 6
    assert set(arguments) <= set(container["args"])
