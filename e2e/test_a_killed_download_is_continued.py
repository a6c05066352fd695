"""A download on a claim that is killed at several moments is continued, and ends whole."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_sources import TRUSTING, ModelSources, trust
from pod_processes import kill_process
from provider.prerequisites import docker_available
from servers import Server, spec
from stack import ROOT
from volumes import node_claim

pytestmark = pytest.mark.skipif(
    docker_available(), reason="in kind, volumes and processes of the node are in a container"
)

MODEL = ROOT / "build/models/tiny.gguf"
MOMENTS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.65)
"""Minimum shares of the file on the claim when the process is killed. The file grows by up to 9 MiB
at once, which were received out of order: at more than 0.65 it could already be complete."""
SECONDS = 60


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """Name of a claim to `tmp_path`."""
    with node_claim(server, "models", tmp_path) as claim:
        yield claim


def test_a_killed_download_is_continued(
    server: Server, model_sources: ModelSources, claim: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    model = {"url": f"{model_sources.web.url}/slow/{MODEL.name}", "sha256": digest}
    trust(server, model_sources.authority)
    server.apply(spec() | {"model": {**model, "download": TRUSTING, "cache": {"claimName": claim}}})
    size = MODEL.stat().st_size
    whole = tmp_path / f"sha256-{digest}.gguf"
    part = whole.with_name(f"{whole.name}.part")
    kept: list[int] = []
    for moment in MOMENTS:
        _wait_for_size(part, max(int(size * moment), *(each + 1 for each in kept), 0))
        kill_process(
            lambda arguments, _: "download" in arguments and f"/models/{whole.name}" in arguments
        )
        kept.append(part.stat().st_size)
        # A new pod: the same one would be restarted with a growing delay.
        replicas = "slotkeeper.dev/component=replica"
        server.kubectl("delete", "pods", "-l", replicas, "--force", "--grace-period=0")

    server.wait("condition=Ready")

    # `pytest -rP` shows this line.
    print(f"{len(kept)} kills of a download of {size} bytes, of which the claim had {kept}")
    assert kept == sorted(kept)
    assert kept[-1] < size
    assert not part.exists()
    assert hashlib.sha256(whole.read_bytes()).hexdigest() == digest
    [result] = server.chat()
    assert result["completed"], result


def _wait_for_size(path: Path, size: int) -> None:
    """Wait until the file exists and has at least this size."""
    deadline = time.monotonic() + SECONDS
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path.name} does not grow to {size} bytes"
        time.sleep(0.01)
