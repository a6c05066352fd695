"""Files of oci:// URLs, from Debian's docker-registry, and from a registry that issues tokens."""

import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from gguf_files import gguf
from model_host import ModelHost, Reply, content, model_host, status
from slotkeeper.api.crd import ROOT
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.token import Token
from slotkeeper.download.transfer import new_client

CERTIFICATE = Path(ROOT, "tests/support/tls.pem")
USER = "reader:CANARY"
HTPASSWD = "reader:$2b$04$abcdefghijklmnopqrstuuA1n0mBpuBflT9o8ajqXH1XjRREPpLdy\n"
TOKEN = Token(USER, frozenset({"127.0.0.1"}))

BODY, OTHER, PROJECTOR = gguf({"a": 4096}), gguf({"b": 8}), gguf({"c": 8})
MODEL_TYPE, PROJECTOR_TYPE = "application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.mmproj"

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

    def push(self, tag: str, *layers: tuple[str, bytes, str | None]) -> str:
        """Push an artifact with these layers; return its URL."""
        base = f"https://{self.host}/v2/team/model"
        user, password = USER.split(":")
        tls = ssl.create_default_context(cafile=str(CERTIFICATE))
        with httpx.Client(verify=tls, auth=(user, password)) as client:
            for body in (b"{}", *(body for _, body, _ in layers)):
                upload = httpx.URL(client.post(f"{base}/blobs/uploads/").headers["location"])
                upload = upload.copy_add_param("digest", descriptor("", body)["digest"])
                client.put(upload, content=body).raise_for_status()
            text = manifest(*(descriptor(*layer) for layer in layers))
            headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
            client.put(f"{base}/manifests/{tag}", content=text, headers=headers).raise_for_status()
        return f"oci://{self.host}/team/model:{tag}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "htpasswd").write_text(HTPASSWD)
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": host, "tls": {"certificate": str(CERTIFICATE), "key": str(CERTIFICATE)}},
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
        yield Registry(host)
        process.terminate()


@pytest.fixture
def environment() -> Iterator[Environment]:
    with new_client(TOKEN, CERTIFICATE) as client:
        yield Environment(
            client,
            clock=lambda: 0.0,
            sleep=lambda _: None,
            chance=lambda: 0.0,
            token=TOKEN,
        )


def failure(file: File, environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(file, environment)
    assert "CANARY" not in caught.value.message
    return caught.value


@needs_registry
@pytest.mark.parametrize(
    "layer",
    [
        ("application/octet-stream", BODY, "model-Q4_K_M.gguf"),
        (MODEL_TYPE, BODY, None),
    ],
    ids=["ORAS", "Docker"],
)
def test_the_layer_with_the_model_is_downloaded(
    registry: Registry, environment: Environment, tmp_path: Path, layer: tuple[str, bytes, str]
) -> None:
    url = registry.push("v1", ("application/vnd.docker.ai.license", b"MIT", None), layer)

    record = download(File(url, tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert record.sha256 == hashlib.sha256(BODY).hexdigest()
    assert "CANARY" not in "".join(
        path.read_text(errors="replace") for path in tmp_path.iterdir() if path.suffix == ".json"
    )


@needs_registry
def test_a_projector_is_a_layer_of_the_same_artifact(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("vision", (MODEL_TYPE, BODY, None), (PROJECTOR_TYPE, PROJECTOR, None))

    download(File(url, tmp_path / "m.gguf"), environment)
    download(File(url, tmp_path / "p.gguf", role="model.mmproj"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert (tmp_path / "p.gguf").read_bytes() == PROJECTOR


@needs_registry
def test_a_tag_that_has_moved_is_not_resolved_again(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("moving", (MODEL_TYPE, BODY, None))
    first = download(File(url, tmp_path / "m.gguf"), environment)
    registry.push("moving", (MODEL_TYPE, OTHER, None))

    assert download(File(url, tmp_path / "m.gguf"), environment) == first
    other = download(File(url, tmp_path / "other.gguf"), environment)
    assert other.size == len(OTHER)


@needs_registry
@pytest.mark.parametrize(
    ("layers", "reason", "message"),
    [
        ([], Reason.MODEL_NOT_FOUND, "has no layer with a GGUF file, of 0 layers"),
        (
            [("application/vnd.oci.image.layer.v1.tar+gzip", b"tar", None)],
            Reason.MODEL_NOT_FOUND,
            "has no layer with a GGUF file, of 1 layers",
        ),
        (
            [(MODEL_TYPE, BODY, "a.gguf"), (MODEL_TYPE, OTHER, "b.gguf")],
            Reason.MODEL_SPLIT,
            "has several layers with a GGUF file, not one: a.gguf, b.gguf",
        ),
    ],
)
def test_an_artifact_without_one_model_is_rejected(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layers: list[tuple[str, bytes, str | None]],
    reason: Reason,
    message: str,
) -> None:
    error = failure(File(registry.push("other", *layers), tmp_path / "m.gguf"), environment)

    assert (error.reason, error.message.partition(" ")[2]) == (reason, message)


@needs_registry
def test_what_the_registry_rejects_is_reported(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("v1", (MODEL_TYPE, BODY, None))
    missing = failure(File(f"{url}-missing", tmp_path / "m.gguf"), environment)
    anonymous = failure(File(url, tmp_path / "m.gguf"), replace(environment, token=None))
    digest = failure(File(f"{url}@sha256:{'0' * 64}", tmp_path / "m.gguf"), environment)
    checksum = failure(File(url, tmp_path / "m.gguf", "0" * 64), environment)

    assert missing.reason is digest.reason is Reason.MODEL_NOT_FOUND
    assert anonymous.reason is Reason.MODEL_FORBIDDEN
    assert checksum.reason is Reason.MODEL_CHECKSUM_MISMATCH


@needs_registry
def test_user_and_password_are_sent_to_listed_hosts_only(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    other = replace(TOKEN, hosts=frozenset({"ghcr.io"}))
    url = registry.push("v1", (MODEL_TYPE, BODY, None))

    error = failure(File(url, tmp_path / "m.gguf"), replace(environment, token=other))

    assert error.reason is Reason.MODEL_TOKEN_NOT_ALLOWED


@pytest.fixture
def token_host() -> Iterator[ModelHost]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with model_host(context) as host:
        yield host


def with_tokens(host: ModelHost, realm: str | None = None) -> Reply:
    """A registry that issues tokens to USER, and accepts each for three requests."""
    base = host.url.removesuffix("/model.gguf")
    challenge = (
        f'Bearer realm="{realm or base + "/token"}",service="tests",'
        'scope="repository:team/model:pull"'
    )
    issued: list[str] = []
    uses: dict[str, int] = {}

    def reply(request: BaseHTTPRequestHandler) -> None:
        authorization = request.headers.get("Authorization", "")
        if request.path.startswith("/token?"):
            if authorization != f"Basic {b64encode(USER.encode()).decode()}":
                status(401)(request)
                return
            issued.append(f"Bearer token-{len(issued)}")
            content(json.dumps({"token": issued[-1].partition(" ")[2]}).encode())(request)
            return
        uses[authorization] = uses.get(authorization, 0) + 1
        if authorization not in issued or uses[authorization] > 2:
            status(401, **{"WWW-Authenticate": challenge})(request)
        elif request.path == "/v2/team/model/manifests/latest":
            content(manifest(descriptor(MODEL_TYPE, BODY)))(request)
        else:
            content(BODY, cut=5000)(request)

    return reply


def test_a_token_is_requested_again_when_it_has_expired(
    token_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    token_host.respond_with(with_tokens(token_host))
    url = token_host.url.replace("https", "oci").replace("model.gguf", "team/model")

    download(File(url, tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    tokens = [path for path in token_host.paths if path.startswith("/token")]
    assert tokens == ["/token?service=tests&scope=repository%3Ateam%2Fmodel%3Apull"] * len(tokens)
    assert len(tokens) > 1


def test_a_registry_cannot_have_the_password_sent_elsewhere(
    token_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    url = token_host.url.replace("https", "oci").replace("model.gguf", "team/model")
    for realm in ("https://evil.example.com/token", token_host.url.replace("https", "http")):
        token_host.respond_with(with_tokens(token_host, realm))

        error = failure(File(url, tmp_path / "m.gguf"), environment)

        assert error.reason is Reason.MODEL_TOKEN_NOT_ALLOWED


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"layers": 1}', b'{"manifests": []}'])
def test_another_server_is_no_registry(
    token_host: ModelHost, environment: Environment, tmp_path: Path, body: bytes
) -> None:
    token_host.respond_with(content(body))
    url = token_host.url.replace("https", "oci").replace("model.gguf", "team/model")

    error = failure(File(url, tmp_path / "m.gguf"), environment)

    assert error.reason is Reason.MODEL_DOWNLOAD_REJECTED
