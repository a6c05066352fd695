"""`slotkeeper bake` puts a model into an image, which starts without a download.

Prints the time from a pod's creation to its readiness: for the baked image that is not on the node
yet, for one that is, and for the same model downloaded; and the sizes of the images.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from provider.constants import ADDRESS
from provider.images import RUN, buildah_command, buildah_environment
from provider.prerequisites import docker_available
from registry import registry
from servers import Server, Spec, spec
from stack import LLAMA_SERVER, ROOT, Cluster, service_at

pytestmark = pytest.mark.skipif(
    docker_available(), reason="a Docker daemon cannot push to a registry in the node's network"
)

SIZE = ("--layers", "5", "--width", "1024")
"""320 MB, of which llama-server reads all."""
MANIFEST = "Accept: application/vnd.oci.image.manifest.v1+json"
SECONDS = 120


@pytest.fixture(name="registry")
def running_registry(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry in the node's network."""
    with registry(cluster, tmp_path) as address:
        yield address


@pytest.fixture
def url(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """URL of a model on a web server of the node."""
    folder = tmp_path / "served"
    folder.mkdir()
    script = ROOT / "images/demo-models/write_gguf.py"
    subprocess.run([sys.executable, script, folder / "large.gguf", *SIZE], check=True)
    server = (sys.executable, "-m", "http.server", "80", "--bind", ADDRESS)
    with cluster.start("run", *server, "--directory", str(folder)) as process:
        yield f"http://{ADDRESS}/large.gguf"
        process.terminate()


@dataclass(frozen=True)
class Baked:
    """What the command printed, and how long it took."""

    fields: Spec
    seconds: float


@pytest.fixture
def baked(
    cluster: Cluster,
    registry: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Baked:
    """An image that is baked with the cluster's buildah, and pushed."""
    for name, value in _environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    printed = cluster.read(
        *("run", sys.executable, "-m", "slotkeeper", "bake", "--tool", "buildah", "--push"),
        *("--model", url, "--image", f"{registry}/team/large:1"),
        *("--base", f"docker.io/{LLAMA_SERVER.reference}"),
        *("--cache-dir", str(tmp_path / "cache")),
    )
    return Baked(yaml.safe_load(printed)["spec"], time.monotonic() - start)


def test_a_baked_image_starts_without_a_download(
    server: Server, baked: Baked, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, image = baked.fields["model"], baked.fields["image"]
    assert model == {"url": "image:///models/model.gguf", "sha256": None, "partsSha256": None}
    in_image = {**spec(), "image": image, "model": {"url": model["url"]}}
    # The node's address is not public, and is allowed only as a Service of the server's namespace.
    server.cluster.apply(*service_at("weights", ADDRESS, 80), namespace=server.namespace)
    in_cluster = url.replace(ADDRESS, f"weights.{server.namespace}.svc")

    cold = _seconds_to_ready(replace(server, name="cold"), in_image)
    chat = replace(server, name="cold").chat()
    warm = [_seconds_to_ready(replace(server, name=f"warm-{n}"), in_image) for n in range(3)]
    downloaded = [
        _seconds_to_ready(replace(server, name=f"downloaded-{n}"), spec(in_cluster))
        for n in range(3)
    ]

    assert chat[0]["completed"]
    [pod] = replace(server, name="cold").pods("replica")
    assert pod["spec"].get("initContainers", []) == []
    assert pod["spec"]["containers"][0]["image"] == image
    assert sorted(warm)[1] < sorted(downloaded)[1]
    base, weights = _layer_sizes(server.cluster, image)
    size = (tmp_path / "served/large.gguf").stat().st_size
    with capsys.disabled():
        print(f"\nmodel: {size / 1e6:.0f} MB; baked and pushed in {baked.seconds:.0f} s")
        print(f"image: {base / 1e6:.0f} MB of llama-server, {weights / 1e6:.0f} MB of weights")
        print(f"from pod to ready: baked, image not on the node: {cold:.1f} s")
        print(f"from pod to ready: baked, image on the node: {_listed(warm)} s")
        print(f"from pod to ready: downloaded: {_listed(downloaded)} s")


def _seconds_to_ready(server: Server, spec: Spec) -> float:
    """Apply the server; return the seconds from its replica's creation until it is ready, with an
    error of a third of a second.."""
    server.apply(spec)
    created: float | None = None
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        pods = server.pods("replica")
        now = time.monotonic()
        for pod in pods:
            created = created or now
            conditions = pod["status"].get("conditions", [])
            if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
                return now - created
        time.sleep(0.1)
    raise TimeoutError(json.dumps(server.get()["status"]))


def _layer_sizes(cluster: Cluster, image: str) -> tuple[int, int]:
    """Return the bytes of the base's layers and of the last one, as they are in the registry."""
    host, _, rest = image.partition("/")
    name, _, digest = rest.partition("@")
    url = f"http://{host}/v2/{name}/manifests/{digest}"
    manifest = json.loads(cluster.read("run", "curl", "-fsS", "--header", MANIFEST, url))
    *base, weights = [layer["size"] for layer in manifest["layers"]]
    return sum(base), weights


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in sorted(seconds))


def _environment(folder: Path) -> dict[str, str]:
    """Return buildah's environment, in which it has the storage of the test cluster."""
    command = buildah_command()
    store, driver = (command[command.index(flag) + 1] for flag in ("--root", "--storage-driver"))
    text = f'[storage]\ndriver = "{driver}"\ngraphroot = "{store}"\nrunroot = "{RUN}"\n'
    (folder / "storage.conf").write_text(text)
    changed = {
        name: value
        for name, value in buildah_environment().items()
        if os.environ.get(name) != value
    }
    return {**changed, "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf")}
