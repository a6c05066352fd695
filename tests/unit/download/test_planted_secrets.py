"""Planted credentials of each source: none is in arguments, the environment, logs, termination
messages, files, manifests, the status or events, whatever fails and whatever a host sends back."""

import hashlib
import json
import os
import ssl
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest

from fake_cluster import FakeCluster
from llamaservers import ROOT
from model_host import ModelHost, Reply, content, model_host, redirect, status
from operator_harness import (
    Operator,
    apply_server,
    event_reasons,
    roll_out,
    server_status,
    set_pod_status,
)
from pod_statuses import download as download_state
from pod_statuses import terminated
from slotkeeper.download.main import main

CERTIFICATE = Path(ROOT, "tests/support/tls.pem")

TOKEN = "hf_PLANTED-token-1"
USER = "reader:PLANTED-password-2"
KEY_ID, KEY = "PLANTEDKEYID00000003", "PLANTED/secret+key/4"
ISSUED = "PLANTED-issued-token-5"
SIGNED = "X-Amz-Signature=PLANTED6&X-Amz-Date=20260101T000000Z&X-Amz-Expires=1"
USERINFO = "someone:PLANTED-userinfo-7"
PLANTED = {
    "PLANTED",
    b64encode(USER.encode()).decode(),
    b64encode(USER.partition(":")[2].encode()).decode(),
}
"""What all of them contain, and encoded forms."""

Arguments = Callable[[ModelHost, Path], tuple[list[str], Mapping[str, str]]]
"""Returns the arguments and the environment of a download, and writes the files that they name."""


def _token(folder: Path, value: str) -> list[str]:
    (folder / "token").write_text(value)
    (folder / "hosts").write_text("127.0.0.1")
    return ["--token-file", f"{folder}/token", "--token-hosts-file", f"{folder}/hosts"]


def _https(host: ModelHost, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    return [*_token(folder, TOKEN), "--model", host.url], {}


def _hub(host: ModelHost, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    endpoint = host.url.removesuffix("/model.gguf")
    url = "hf://org/Model-GGUF/model.gguf"
    return [*_token(folder, TOKEN), "--model", url], {"HF_ENDPOINT": endpoint}


def _object_store(host: ModelHost, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    files = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": KEY, "hosts": "127.0.0.1"}
    for name, value in files.items():
        (folder / name).write_text(value)
    endpoint = host.url.removesuffix("/model.gguf")
    options = ["--s3-endpoint", endpoint, "--s3-credentials", str(folder)]
    return [*options, "--model", "s3://models/model.gguf"], {}


def _registry(host: ModelHost, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    registry = host.url.removeprefix("https://").removesuffix("/model.gguf")
    return [*_token(folder, USER), "--model", f"oci://{registry}/team/model:v1"], {}


SOURCES: dict[str, Arguments] = {
    "https": _https,
    "hf": _hub,
    "s3": _object_store,
    "oci": _registry,
}


def sent(request: BaseHTTPRequestHandler) -> list[str]:
    """Return the credentials of a request, in several forms."""
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind == "Basic":
        user = b64decode(value).decode()
        return [value, user, user.partition(":")[2], quote(user, safe="")]
    # Of a signature, the identifier of the key.
    return [value.removeprefix("Credential=").partition("/")[0]]


def authorized(reply: Reply) -> Reply:
    """Require credentials first, if a client sends none."""

    def respond(request: BaseHTTPRequestHandler) -> None:
        if "Authorization" in request.headers:
            reply(request)
        else:
            status(401, **{"WWW-Authenticate": "Basic"})(request)

    return respond


def echo(request: BaseHTTPRequestHandler) -> None:
    """Respond with the credentials of the request, and others, wherever a host can."""
    text = " ".join([*sent(request), "PLANTED-by-the-host"])
    request.send_response(403, text)
    for name in ("Location", "WWW-Authenticate", "ETag", "X-Error-Message"):
        request.send_header(name, text)
    request.send_header("Content-Length", str(len(text)))
    request.end_headers()
    request.wfile.write(text.encode())


def named(request: BaseHTTPRequestHandler) -> None:
    """List files and layers whose names are the credentials of the request."""
    names = [*sent(request), "another"]
    siblings = [{"rfilename": f"{name}.gguf"} for name in names]
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}",
            "annotations": {"org.opencontainers.image.title": f"{name}.gguf"},
        }
        for name in names
    ]
    _json({"sha": "ab" * 20, "siblings": siblings, "layers": layers})(request)


def _json(tree: object) -> Reply:
    return content(json.dumps(tree).encode())


def _raw(text: str) -> Reply:
    """Respond with this text, in which {} is a credential of the host's own."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(text.format("PLANTED-by-the-host").encode())
        request.close_connection = True

    return reply


def challenge(request: BaseHTTPRequestHandler) -> None:
    """As a registry whose tokens are issued by the same host, which issues one, and then fails."""
    port = request.headers["Host"].rpartition(":")[2]
    if request.path.startswith("/issue"):
        _json({"token": ISSUED})(request)
    elif ISSUED in request.headers.get("Authorization", ""):
        status(500)(request)
    else:
        realm = f"https://127.0.0.1:{port}/issue?{SIGNED}"
        status(401, **{"WWW-Authenticate": f'Bearer realm="{realm}",scope="pull"'})(request)


def failed_token_server(request: BaseHTTPRequestHandler) -> None:
    """As a registry whose token server has an address with credentials, and fails."""
    port = request.headers["Host"].rpartition(":")[2]
    if request.path.startswith("/issue"):
        status(403)(request)
    else:
        realm = f"https://{USERINFO}@127.0.0.1:{port}/issue?{SIGNED}"
        status(401, **{"WWW-Authenticate": f'Bearer realm="{realm}"'})(request)


def _redirected(to: str) -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        port = request.headers["Host"].rpartition(":")[2]
        if "there" in request.path:
            status(403)(request)
        else:
            redirect(to.format(port=port))(request)

    return reply


FAULTS: dict[str, Reply] = {
    **{str(code): status(code) for code in (400, 401, 403, 404, 410, 416, 418, 429, 500, 503)},
    "an echo of the request": authorized(echo),
    "credentials as names": authorized(named),
    "a challenge": challenge,
    "a token server that fails": failed_token_server,
    "no HTTP": _raw("{}\r\n\r\n"),
    "a broken header": _raw("HTTP/1.1 200 OK\r\n{}\r\n\r\n"),
    "a broken length": _raw("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n"),
    "a broken chunk": _raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n"),
    "no response": _raw(""),
    "an incomplete response": content(cut=9),
    "a web page": content(b"<html>PLANTED</html>"),
    "a short file": content(b"GG"),
    "an encoding": status(200, **{"Content-Encoding": "PLANTED"}),
    "a redirect to a signed URL": _redirected(f"/there?{SIGNED}"),
    "a redirect with a user": _redirected(f"https://{USERINFO}@localhost:{{port}}/there?{SIGNED}"),
    "a redirect to http": _redirected(f"http://{USERINFO}@127.0.0.1:{{port}}/there?{SIGNED}"),
    "a redirect to nowhere": _redirected(f"https://{USERINFO}@localhost:1/there?{SIGNED}"),
    "a redirect to no host": _redirected(f"https://{USERINFO}@no.such.invalid/there?{SIGNED}"),
    "a redirect to a file": _redirected(f"file://{USERINFO}@localhost/there?{SIGNED}"),
    "a redirect to no port": _redirected("https://localhost:PLANTED/there"),
    "a redirect to no URL": _redirected(f"https://{USERINFO}@[::PLANTED/there?{SIGNED}"),
    "endless redirects": _redirected(f"https://{USERINFO}@127.0.0.1:{{port}}/?{SIGNED}"),
}


@contextmanager
def host_with_tls() -> Iterator[ModelHost]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with model_host(context) as host:
        yield host


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture(scope="module")
def shared_host() -> Iterator[ModelHost]:
    with host_with_tls() as host:
        yield host


@dataclass
class Run:
    """A download that has failed."""

    code: int
    message: str
    """The termination message."""
    files: str
    """The content of all files on the volume."""


@pytest.fixture
def run(
    shared_host: ModelHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Run]:
    """Run a download of a source with a fault."""

    def run(source: str, fault: str) -> Run:
        shared_host.respond_with(FAULTS[fault])
        log, secrets = tmp_path / "termination-log", tmp_path / "secrets"
        secrets.mkdir()
        log.touch()
        options, variables = SOURCES[source](shared_host, secrets)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        volume = tmp_path / "models"
        code = main(
            [
                *("--log-level", "debug", "--tries", "1", "--termination-log", str(log)),
                *("--ca-file", str(CERTIFICATE), *options, "--to", f"{volume}/model.gguf"),
            ]
        )
        stored = [each.read_text(errors="replace") for each in volume.rglob("*") if each.is_file()]
        return Run(code, log.read_text(), "".join(stored))

    return run


def leaks(text: str) -> list[str]:
    return [planted for planted in PLANTED if planted in text]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("source", SOURCES)
async def test_no_credential_is_in_what_a_failure_leaves(
    source: str,
    fault: str,
    run: Callable[[str, str], Run],
    shared_host: ModelHost,
    capfd: pytest.CaptureFixture[str],
    cluster: FakeCluster,
) -> None:
    failed = run(source, fault)

    assert shared_host.requests
    assert failed.code in {1, 75}
    assert leaks(failed.message) == []
    logged = capfd.readouterr().err
    assert f" ERROR slotkeeper.download.main: {json.loads(failed.message)['reason']}: " in logged
    assert leaks(logged) == []
    assert leaks(failed.files) == []

    await report(cluster, source, failed.message)
    reason = json.loads(failed.message)["reason"]
    assert reason in json.dumps(server_status(cluster))
    assert event_reasons(cluster)
    assert leaks(json.dumps(list(cluster.objects.values()))) == []


SPECS: dict[str, dict[str, Any]] = {
    "https": {"url": "https://m.example/model.gguf", "tokenSecretRef": {"name": "models"}},
    "hf": {"url": "hf://org/Model-GGUF/model.gguf", "tokenSecretRef": {"name": "models"}},
    "s3": {"url": "s3://models/model.gguf", "s3": {"secretRef": {"name": "models"}}},
    "oci": {"url": "oci://m.example/team/model:v1", "tokenSecretRef": {"name": "models"}},
}


async def report(cluster: FakeCluster, source: str, message: str) -> None:
    """Let the operator report a pod with this termination message."""
    operator = Operator(cluster)
    apply_server(cluster, model=SPECS[source])
    await operator.reconcile()
    roll_out(cluster)
    set_pod_status(cluster, download_state(state=terminated(message)))
    await operator.reconcile()


@pytest.mark.parametrize("source", SOURCES)
def test_no_credential_is_in_the_arguments_or_the_environment_of_the_process(
    source: str, tmp_path: Path
) -> None:
    reached, read = Event(), Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        reached.set()
        read.wait(20)
        status(404)(request)

    (tmp_path / "secrets").mkdir()
    with host_with_tls() as host:
        host.respond_with(wait)
        options, variables = SOURCES[source](host, tmp_path / "secrets")
        command = [
            *(sys.executable, "-m", "slotkeeper", "download", "--log-level", "debug"),
            *("--ca-file", str(CERTIFICATE), "--tries", "1", *options),
            *("--to", str(tmp_path / "model.gguf")),
        ]
        with subprocess.Popen(
            command, env={**os.environ, **variables}, stderr=subprocess.DEVNULL
        ) as process:
            assert reached.wait(20)
            seen = [
                Path(f"/proc/{process.pid}/{name}").read_text(errors="replace")
                for name in ("cmdline", "environ", "comm", "status")
            ]
            read.set()

    assert "--model" in seen[0]
    assert leaks("".join(seen)) == []
