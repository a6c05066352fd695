import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from download_harness import DownloadHarness
from model_host import ModelHost, model_host
from oci_registry import CERTIFICATE, TOKEN, Registry, running_registry
from slotkeeper.download.download import Environment
from slotkeeper.download.transfer import new_client


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with model_host() as host:
        yield host


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with new_client() as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.gguf"


@pytest.fixture
def harness(client: httpx.Client, path: Path) -> DownloadHarness:
    return DownloadHarness(client, path)


@pytest.fixture
def tls_host() -> Iterator[ModelHost]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with model_host(context) as host:
        yield host


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def environment() -> Iterator[Environment]:
    """Of downloads from `registry`."""
    with new_client(TOKEN, CERTIFICATE) as client:
        yield Environment(
            client,
            clock=lambda: 0.0,
            sleep=lambda _: None,
            chance=lambda: 0.0,
            token=TOKEN,
        )
