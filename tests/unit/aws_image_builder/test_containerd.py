"""The steps that pull and verify images, with a real containerd and a real registry."""

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest

from step_scripts import Node

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd needs root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("containerd", "ctr", "docker-registry"))),
        reason="Debian's containerd and docker-registry are not installed",
    ),
]

CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/containerd.sock"
"""
REGISTRY = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/registry}}
http: {{addr: "{host}"}}
auth:
  htpasswd: {{realm: test, path: {folder}/htpasswd}}
"""
HTPASSWD = "reader:$2b$04$abcdefghijklmnopqrstuuA1n0mBpuBflT9o8ajqXH1XjRREPpLdy\n"
USER = ("reader", "CANARY")
HOSTS = """\
server = "http://{host}"
[host."http://{host}"]
  capabilities = ["pull", "resolve"]
  [host."http://{host}".header]
    Authorization = "Basic cmVhZGVyOkNBTkFSWQ=="
"""
"""As pull-images.sh writes it for ECR, which also has Basic authentication."""
TYPE = "application/vnd.oci.image"


@dataclass
class Real:
    """A node with a real containerd, and the registry that it pulls from."""

    node: Node
    host: str
    hosts_folder: Path
    address: str

    def run(self, step: str, *images: str) -> CompletedProcess[str]:
        """Run a step of images."""
        return self.node.run(
            step,
            IMAGES=" ".join(images),
            CONTAINERD_ADDRESS=self.address,
            HOSTS_FOLDER=str(self.hosts_folder),
            RUN_FOLDER=str(self.node.folder),
            RETRY_SECONDS="0",
        )

    def ctr(self, *arguments: str) -> str:
        """Run ctr, as the kubelet's namespace."""
        command = ["ctr", "--address", self.address, "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def push(self, name: str, tag: str) -> str:
        """Push an image of one layer; return its name with tag and digest."""
        layer = _layer({"models/model.gguf": b"GGUF"})
        diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff]},
        }
        blobs = [json.dumps(config).encode(), gzip.compress(layer, mtime=0)]
        kinds = [f"{TYPE}.config.v1+json", f"{TYPE}.layer.v1.tar+gzip"]
        with httpx.Client(auth=USER, base_url=f"http://{self.host}/v2/{name}/") as client:
            for blob in blobs:
                upload = httpx.URL(client.post("blobs/uploads/").headers["location"])
                client.put(
                    upload.copy_add_param("digest", _digest(blob)), content=blob
                ).raise_for_status()
            described = [
                {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}
                for kind, blob in zip(kinds, blobs, strict=True)
            ]
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": f"{TYPE}.manifest.v1+json",
                    "config": described[0],
                    "layers": described[1:],
                }
            ).encode()
            client.put(
                f"manifests/{tag}",
                content=manifest,
                headers={"Content-Type": f"{TYPE}.manifest.v1+json"},
            ).raise_for_status()
        return f"{self.host}/{name}:{tag}@{_digest(manifest)}"


@pytest.fixture
def real(node: Node) -> Iterator[Real]:
    folder = node.folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "containerd.toml").write_text(CONFIG.format(folder=folder))
    (folder / "registry.yml").write_text(REGISTRY.format(folder=folder, host=host))
    (folder / "htpasswd").write_text(HTPASSWD)
    hosts = folder / "certs.d"
    (hosts / host).mkdir(parents=True)
    (hosts / host / "hosts.toml").write_text(HOSTS.format(host=host))
    node.link("/usr/bin/ctr")
    node.install("systemctl")
    containerd = ["containerd", "--config", str(folder / "containerd.toml")]
    registry = ["docker-registry", "serve", str(folder / "registry.yml")]
    with (
        subprocess.Popen(containerd, stderr=subprocess.DEVNULL) as one,
        subprocess.Popen(registry, stderr=subprocess.DEVNULL) as other,
    ):
        real = Real(node, host, hosts, str(folder / "containerd.sock"))
        _wait(real)
        yield real
        one.terminate()
        other.terminate()


def _wait(real: Real) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError, subprocess.CalledProcessError):
            real.ctr("version")
            if httpx.get(f"http://{real.host}/v2/").status_code == 401:
                return
        time.sleep(0.05)
    raise TimeoutError(real.host)


def _layer(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_images_are_pulled_unpacked_tagged_and_pinned(real: Real) -> None:
    image = real.push("team/llama", "1")
    name, _, digest = image.partition("@")

    pulled = real.run("pull-images", image)
    again = real.run("pull-images", image)
    verified = real.run("verify-images", image)

    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.splitlines()[-1].startswith("pull-images: pulled")
    assert (again.returncode, "already there" in again.stdout) == (0, True)
    assert verified.returncode == 0, verified.stderr
    listed = real.ctr("images", "list")
    for each in (name, f"{real.host}/team/llama@{digest}"):
        [line] = [line for line in listed.splitlines() if line.startswith(f"{each} ")]
        assert "io.cri-containerd.pinned=pinned" in line
    assert "models/model.gguf" in _unpacked(real, name)


def _unpacked(real: Real, name: str) -> str:
    mounted = real.node.folder / "mounted"
    mounted.mkdir()
    real.ctr("images", "mount", name, str(mounted))
    try:
        return "\n".join(str(path.relative_to(mounted)) for path in mounted.rglob("*"))
    finally:
        real.ctr("images", "unmount", "--rm", str(mounted))


def test_a_missing_image_and_one_that_may_be_removed_are_reported(real: Real) -> None:
    image = real.push("team/llama", "1")

    missing = real.run("verify-images", image)
    assert missing.returncode == 1
    assert f"missing or incomplete: {image.partition('@')[0]}" in missing.stderr
    assert "no instance store over /var/lib/containerd" in missing.stderr

    assert real.run("pull-images", image).returncode == 0
    real.ctr("images", "label", image.partition("@")[0], "io.cri-containerd.pinned=")
    unpinned = real.run("verify-images", image)
    assert unpinned.returncode == 1
    assert "not pinned, so that the kubelet may remove it" in unpinned.stderr


def test_another_digest_is_not_pulled(real: Real) -> None:
    image = real.push("team/llama", "1").partition("@")[0]

    result = real.run("pull-images", f"{image}@sha256:{'0' * 64}")

    assert result.returncode == 1
    assert "cannot pull" in result.stderr
    assert real.ctr("images", "list", "--quiet") == ""
