"""One API server with the CRDs for all API tests."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer, apiserver
from gateway_harness import GATEWAY
from operator_harness import KEY
from slotkeeper.desired import names
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.kinds import CHILDREN, GATEWAY_CHILDREN, LLAMA_GATEWAYS, LLAMA_SERVERS

ROOT = Path(__file__).resolve().parents[2]
GROUP_VERSION = "apis/slotkeeper.dev/v1alpha1"
CRDS = ROOT / "crds"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.apiserver)


@pytest.fixture(scope="session")
def bare_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A kube-apiserver without our CRDs."""
    with apiserver(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="session")
def api(bare_api: ApiServer) -> ApiServer:
    """The kube-apiserver with our CRDs established."""
    applied = bare_api.kubectl("apply", "--server-side", "--filename", str(CRDS))
    assert applied.returncode == 0, applied.stderr
    waited = bare_api.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", "--filename", str(CRDS)
    )
    assert waited.returncode == 0, waited.stderr
    # The index that `kubectl explain` reads is updated a little after Established.
    deadline = time.monotonic() + 30
    while GROUP_VERSION not in bare_api.client.get("/openapi/v3").json()["paths"]:
        assert time.monotonic() < deadline, "the API server publishes no schema of the CRDs"
        time.sleep(0.05)
    return bare_api


@pytest.fixture
async def cluster(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiCluster]:
    """The operator's API client; the test's server and gateway are deleted after the test, with
    their children."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
    async with await ApiCluster.connect() as connected:
        yield connected
        for owner, key, label in (
            (LLAMA_SERVERS, KEY, names.SERVER_LABEL),
            (LLAMA_GATEWAYS, GATEWAY, names.GATEWAY_LABEL),
        ):
            await connected.delete(owner, *key)
            for kind in dict.fromkeys((*CHILDREN, *GATEWAY_CHILDREN)):
                for item in (await connected.list(kind, key.namespace, {label: key.name})).items:
                    await connected.delete(kind, key.namespace, item["metadata"]["name"])
        # Its finalizer needs a controller that does not run here.
        claim = ("pvc", f"{GATEWAY.name}-batches", "-n", GATEWAY.namespace)
        api.kubectl("patch", *claim, "-p", '{"metadata":{"finalizers":null}}')
