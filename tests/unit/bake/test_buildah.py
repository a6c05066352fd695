"""Images that the real buildah bakes, in a real registry."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gguf_files import gguf
from model_host import ModelHost, content
from provider.images import supports_overlayfs
from slotkeeper.bake.main import main

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="buildah needs root here"),
    pytest.mark.skipif(
        not (shutil.which("buildah") and shutil.which("docker-registry")),
        reason="Debian's buildah and docker-registry are not installed",
    ),
]

MODEL = gguf({"a": 300_000})
STORAGE = """\
[storage]
driver = "{driver}"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
REGISTRIES = """\
unqualified-search-registries = ["localhost"]
[[registry]]
location = "{host}"
insecure = true
"""
REGISTRY = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: {folder}/registry}}
http: {{addr: "{host}"}}
"""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Registry:
    """A running docker-registry without users."""

    host: str
    log: Path

    def get(self, name: str, kind: str, reference: str) -> httpx.Response:
        url = f"http://{self.host}/v2/{name}/{kind}/{reference}"
        response = httpx.get(url, headers={"Accept": MANIFEST})
        assert response.status_code == 200, response.text
        return response

    def uploads(self) -> int:
        """How many blobs have been uploaded."""
        return len(re.findall(r'"PUT /v2/\S+/blobs/uploads/', self.log.read_text()))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry that buildah may use, and buildah with an empty storage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    for name, text in (("registry.yml", REGISTRY), ("registries.conf", REGISTRIES)):
        (tmp_path / name).write_text(text.format(folder=tmp_path, host=host))
    driver = "overlay" if supports_overlayfs(tmp_path) else "vfs"
    (tmp_path / "storage.conf").write_text(STORAGE.format(folder=tmp_path, driver=driver))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    log = tmp_path / "registry.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            ["docker-registry", "serve", str(tmp_path / "registry.yml")],
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        _wait_until_served(f"http://{host}/v2/")
        yield Registry(host, log)
        process.terminate()


def _wait_until_served(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.05)
    raise TimeoutError(url)


def base(name: str) -> str:
    """Create an image of one layer, whose user is not root."""
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    (root / "llama-server").write_text(name)
    buildah("config", "--user", "65532:65532", "--entrypoint", '["/llama-server"]', container)
    buildah("commit", "--quiet", "--rm", container, f"localhost/{name}")
    return f"localhost/{name}"


def buildah(*arguments: str) -> str:
    command = ("buildah", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def bake(host: ModelHost, registry: Registry, folder: Path, base: str, tag: str, *argv: str) -> int:
    return main(
        [
            *("--model", f"{host.url}?signature=CANARY", "--base", base),
            *("--image", f"{registry.host}/team/qwen:{tag}", "--push", "--tool", "buildah"),
            *("--cache-dir", str(folder / "cache"), *argv),
        ]
    )


def layers(registry: Registry, tag: str) -> list[dict[str, Any]]:
    tree = registry.get("team/qwen", "manifests", tag).json()
    return list(tree["layers"])


def test_the_image_is_the_base_with_one_layer_of_weights(
    registry: Registry, host: ModelHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.respond_with(content(MODEL))

    assert bake(host, registry, tmp_path, base("one"), "1") == 0

    manifest = registry.get("team/qwen", "manifests", "1")
    digest = manifest.headers["docker-content-digest"]
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["spec"]["image"] == f"{registry.host}/team/qwen@{digest}"
    config = registry.get("team/qwen", "blobs", manifest.json()["config"]["digest"]).json()
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["/llama-server"]
    labels = config["config"]["Labels"]
    assert labels["slotkeeper.dev/model-url"] == host.url
    assert labels["org.opencontainers.image.base.name"] == "localhost/one"
    annotations = manifest.json()["annotations"]
    assert annotations["slotkeeper.dev/model-sha256"] == labels["slotkeeper.dev/model-sha256"]
    assert len(manifest.json()["layers"]) == len(config["rootfs"]["diff_ids"]) == 2
    assert "CANARY" not in json.dumps([manifest.json(), config])

    container = buildah("from", f"{registry.host}/team/qwen:1")
    root = Path(buildah("mount", container))
    assert (root / "models/model.gguf").read_bytes() == MODEL
    assert (root / "models/model.gguf").stat().st_mode & 0o777 == 0o444
    assert (root / "models").stat().st_mode & 0o555 == 0o555
    assert [path.name for path in (root / "models").iterdir()] == ["model.gguf"]
    buildah("rm", container)


def test_another_base_does_not_upload_the_weights_again(
    registry: Registry, host: ModelHost, tmp_path: Path
) -> None:
    host.respond_with(content(MODEL))
    assert bake(host, registry, tmp_path, base("one"), "1") == 0
    before = registry.uploads()
    # Only what buildah remembers of the registry's blobs is left.
    shutil.rmtree(tmp_path / "cache")
    buildah("rmi", "--all", "--force")

    assert bake(host, registry, tmp_path, base("two"), "2") == 0

    (first_base, weights), (second_base, same) = layers(registry, "1"), layers(registry, "2")
    assert weights["digest"] == same["digest"]
    assert first_base["digest"] != second_base["digest"]
    # The new base's layer and the configuration.
    assert registry.uploads() - before == 2


def test_a_second_run_changes_nothing(
    registry: Registry, host: ModelHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.respond_with(content(MODEL))
    image = base("one")
    assert bake(host, registry, tmp_path, image, "1") == 0
    printed = capsys.readouterr().out

    assert bake(host, registry, tmp_path, image, "1") == 0

    assert capsys.readouterr().out == printed
    assert len(host.requests) == 1


def test_an_unknown_base_is_reported(
    registry: Registry, host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = f"{registry.host}/no/such:1"

    assert bake(host, registry, tmp_path, missing, "1") == 1

    assert f"no base image {missing}: buildah pull failed" in caplog.text
    assert "manifest unknown" in caplog.text
    assert host.requests == []
