"""One API server for all API tests, with the CRD in it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer, apiserver

ROOT = Path(__file__).resolve().parents[2]
GROUP_VERSION = "apis/slotkeeper.dev/v1alpha1"
CRD = ROOT / "crds" / "slotkeeper.dev_llamaservers.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.apiserver)


@pytest.fixture(scope="session")
def bare_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A kube-apiserver that knows nothing of ours."""
    with apiserver(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="session")
def api(bare_api: ApiServer) -> ApiServer:
    """The kube-apiserver once our CRD is established."""
    applied = bare_api.kubectl("apply", "--server-side", "--filename", str(CRD))
    assert applied.returncode == 0, applied.stderr
    waited = bare_api.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", "--filename", str(CRD)
    )
    assert waited.returncode == 0, waited.stderr
    # Established comes first; the index that `kubectl explain` reads follows a little later.
    deadline = time.monotonic() + 30
    while GROUP_VERSION not in bare_api.client.get("/openapi/v3").json()["paths"]:
        assert time.monotonic() < deadline, "the API server publishes no schema of the CRD"
        time.sleep(0.05)
    return bare_api
