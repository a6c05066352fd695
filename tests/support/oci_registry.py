"""A registry of OCI artifacts and images on loopback: Debian's docker-registry, with one user."""

import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from slotkeeper.api.crd import ROOT
from slotkeeper.download.token import Token

CERTIFICATE = Path(ROOT, "tests/support/tls.pem")
USER = "reader:CANARY"
HTPASSWD = "reader:$2b$04$abcdefghijklmnopqrstuuA1n0mBpuBflT9o8ajqXH1XjRREPpLdy\n"
TOKEN = Token(USER, frozenset({"127.0.0.1"}))

needs_registry = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="Debian's docker-registry is not installed"
)


def descriptor(kind: str, body: bytes, title: str | None = None) -> dict[str, Any]:
    annotations = {"annotations": {"org.opencontainers.image.title": title}} if title else {}
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(body), **annotations}


def manifest(*layers: dict[str, Any]) -> bytes:
    tree = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [*layers],
    }
    return json.dumps(tree).encode()


@dataclass
class Registry:
    """A running docker-registry, with one user."""

    host: str
    tls: bool = True

    def push(self, tag: str, *layers: tuple[str, bytes, str | None]) -> str:
        """Push an artifact or image with these layers; return its URL."""
        with self._client() as client:
            for body in (b"{}", *(body for _, body, _ in layers)):
                upload = httpx.URL(client.post("blobs/uploads/").headers["location"])
                upload = upload.copy_add_param("digest", descriptor("", body)["digest"])
                client.put(upload, content=body).raise_for_status()
        return self.push_manifest(tag, manifest(*(descriptor(*layer) for layer in layers)))

    def push_manifest(self, tag: str, text: bytes) -> str:
        """Push a manifest or an index, whose blobs are there; return its URL."""
        headers = {"Content-Type": json.loads(text)["mediaType"]}
        with self._client() as client:
            client.put(f"manifests/{tag}", content=text, headers=headers).raise_for_status()
        return f"oci://{self.host}/team/model:{tag}"

    def _client(self) -> httpx.Client:
        user, password = USER.split(":")
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        base = f"{'https' if self.tls else 'http'}://{self.host}/v2/team/model/"
        return httpx.Client(verify=context, auth=(user, password), base_url=base)


@contextmanager
def running_registry(folder: Path, *, tls: bool = True) -> Iterator[Registry]:
    """Yield a registry that keeps its files in a folder."""
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "htpasswd").write_text(HTPASSWD)
    certificate = {"tls": {"certificate": str(CERTIFICATE), "key": str(CERTIFICATE)}}
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": host, **(certificate if tls else {})},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), socket.create_connection(host.split(":"), 1):  # type: ignore[arg-type]
                break
            time.sleep(0.05)
        try:
            yield Registry(host, tls=tls)
        finally:
            process.terminate()
