"""Files of oci:// URLs, from Debian's docker-registry, and from a registry that issues tokens."""

import hashlib
import json
from base64 import b64encode
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from typing_extensions import override

from gguf_files import gguf, split_gguf
from model_host import ModelHost, Reply, content, status
from oci_registry import (
    TOKEN,
    USER,
    Registry,
    descriptor,
    manifest,
    needs_registry,
    running_registry,
)
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File

BODY, OTHER, PROJECTOR = gguf({"a": 4096}), gguf({"b": 8}), gguf({"c": 8})
PARTS = split_gguf({"a": 1}, {"b": 1})
SPLIT = [f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
ORAS = "application/octet-stream"
MODEL_TYPE, PROJECTOR_TYPE = "application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.mmproj"


def failure(file: File, environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(file, environment)
    assert "CANARY" not in caught.value.message
    return caught.value


@needs_registry
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (("application/octet-stream", BODY, "model-Q4_K_M.gguf"), "model-Q4_K_M.gguf"),
        ((MODEL_TYPE, BODY, None), ""),
    ],
    ids=["ORAS", "Docker"],
)
def test_the_layer_with_the_model_is_downloaded(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layer: tuple[str, bytes, str],
    name: str,
) -> None:
    url = registry.push("v1", ("application/vnd.docker.ai.license", b"MIT", None), layer)

    record = download(File(url, tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert record.sha256 == hashlib.sha256(BODY).hexdigest()
    assert record.name == name
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
            [("application/vnd.docker.ai.license", b"MIT", None)],
            Reason.MODEL_NOT_FOUND,
            "has no layer with a GGUF file, of 1 layers",
        ),
        (
            [(MODEL_TYPE, BODY, "a.gguf"), (MODEL_TYPE, OTHER, "b.gguf")],
            Reason.MODEL_AMBIGUOUS,
            (
                "has several layers with a GGUF file, of which the URL must name one, such as "
                "oci://HOST/team/model:other/a.gguf: a.gguf, b.gguf"
            ),
        ),
        (
            [(ORAS, PARTS[1], SPLIT[1]), (ORAS, PARTS[0], SPLIT[0])],
            Reason.MODEL_SPLIT,
            (
                "has a split model, whose first file the URL must name, such as "
                f"oci://HOST/team/model:other/{SPLIT[0]}"
            ),
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

    found = error.message.partition(" ")[2].replace(registry.host, "HOST")
    assert (error.reason, found) == (reason, message)


@needs_registry
def test_the_url_names_one_of_several_layers(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("two", (ORAS, BODY, "a.gguf"), (ORAS, OTHER, "team/b.gguf"))

    download(File(f"{url}/team/b.gguf", tmp_path / "m.gguf"), environment)
    error = failure(File(f"{url}/c.gguf", tmp_path / "other.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == OTHER
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert error.message == f"{url}/c.gguf has no such layer, but a.gguf, team/b.gguf"


@needs_registry
@pytest.mark.parametrize(
    "layers",
    [
        [(ORAS, PARTS[1], SPLIT[1]), (ORAS, BODY, "a.gguf"), (ORAS, PARTS[0], SPLIT[0])],
        [(MODEL_TYPE, PARTS[0], None), (MODEL_TYPE, PARTS[1], None)],
    ],
    ids=["ORAS", "Docker"],
)
def test_a_split_model_is_downloaded_from_its_layers(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layers: list[tuple[str, bytes, str | None]],
) -> None:
    url = f"{registry.push('split', *layers)}/{SPLIT[0]}"
    digests = tuple(hashlib.sha256(part).hexdigest() for part in PARTS)

    file = File(url, tmp_path / SPLIT[0], parts_sha256=digests)
    record = download(file, environment)

    assert [(tmp_path / name).read_bytes() for name in SPLIT] == PARTS
    assert record.size == sum(map(len, PARTS))
    wrong = replace(file, path=tmp_path / "other" / SPLIT[0], parts_sha256=digests[::-1])
    assert failure(wrong, environment).reason is Reason.MODEL_CHECKSUM_MISMATCH


@needs_registry
@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([(ORAS, PARTS[0], SPLIT[0])], Reason.MODEL_NOT_FOUND),
        ([(ORAS, PARTS[0], SPLIT[0]), (ORAS, BODY, SPLIT[1])], Reason.MODEL_SPLIT),
        ([(MODEL_TYPE, PARTS[1], None), (MODEL_TYPE, PARTS[0], None)], Reason.MODEL_SPLIT),
        ([(MODEL_TYPE, PARTS[0], None)], Reason.MODEL_NOT_FOUND),
    ],
    ids=["missing", "of another model", "in another order", "too few"],
)
def test_layers_that_are_no_split_model_are_rejected(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layers: list[tuple[str, bytes, str | None]],
    reason: Reason,
) -> None:
    url = f"{registry.push('no-split', *layers)}/{SPLIT[0]}"

    assert failure(File(url, tmp_path / SPLIT[0]), environment).reason is reason


@needs_registry
def test_a_registry_of_the_cluster_may_be_accessed_by_http(tmp_path: Path) -> None:
    class ClusterDns(httpx.HTTPTransport):
        """Resolves all names to loopback."""

        @override
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            url = request.url.copy_with(host="127.0.0.1")
            sent = httpx.Request(request.method, url, headers=request.headers)
            sent.extensions = request.extensions
            return super().handle_request(sent)

    token = replace(TOKEN, hosts=frozenset({"registry.ai.svc"}))
    with (
        running_registry(tmp_path / "registry", tls=False) as plain,
        httpx.Client(transport=ClusterDns()) as client,
    ):
        environment = Environment(
            client, lambda: 0.0, lambda _: None, lambda: 0.0, token=token, plain_http=True
        )
        url = plain.push("v1", (MODEL_TYPE, BODY, None))
        url = url.replace("127.0.0.1", "registry.ai.svc")
        file = File(url, tmp_path / "models/m.gguf")
        secret = failure(file, environment)
        allowed = replace(environment, token=replace(token, allow_http=True))
        download(file, allowed)
        other = replace(file, path=tmp_path / "models/other.gguf")
        tls = failure(other, replace(allowed, plain_http=False))
        outside = replace(other, url=url.replace("registry.ai.svc", "registry.example.com"))
        public = failure(outside, allowed)

    assert secret.reason is Reason.MODEL_TOKEN_NOT_ALLOWED
    assert "tokenSecretRef.allowHttp" in secret.message
    assert file.path.read_bytes() == BODY
    assert tls.reason is public.reason is Reason.MODEL_UNREACHABLE
    assert public.message.startswith("GET https://registry.example.com:")


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
    tls_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    tls_host.respond_with(with_tokens(tls_host))
    url = tls_host.url.replace("https", "oci").replace("model.gguf", "team/model")

    download(File(url, tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    tokens = [path for path in tls_host.paths if path.startswith("/token")]
    assert tokens == ["/token?service=tests&scope=repository%3Ateam%2Fmodel%3Apull"] * len(tokens)
    assert len(tokens) > 1


def test_a_registry_cannot_have_the_password_sent_elsewhere(
    tls_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    url = tls_host.url.replace("https", "oci").replace("model.gguf", "team/model")
    for realm in ("https://evil.example.com/token", tls_host.url.replace("https", "http")):
        tls_host.respond_with(with_tokens(tls_host, realm))

        error = failure(File(url, tmp_path / "m.gguf"), environment)

        assert error.reason is Reason.MODEL_TOKEN_NOT_ALLOWED


def test_a_registry_that_is_not_listed_gets_no_token_of_a_listed_one(tmp_path: Path) -> None:
    """It would choose what the token is for, such as a private repository."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.host == "auth.example.com":
            return httpx.Response(200, stream=httpx.ByteStream(b'{"token": "CANARY"}'))
        challenge = 'Bearer realm="https://auth.example.com/",scope="repository:private:pull,push"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    token = replace(TOKEN, hosts=frozenset({"auth.example.com"}))
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        environment = Environment(
            client, lambda: 0.0, lambda _: None, lambda: 0.0, token=token, plain_http=True
        )
        url = "oci://evil.example.com/team/model:v1"
        error = failure(File(url, tmp_path / "m.gguf"), environment)
        plain = url.replace("evil.example.com", "registry.ai.svc")
        listed = replace(token, hosts=token.hosts | {"registry.ai.svc"})
        by_http = failure(File(plain, tmp_path / "m.gguf"), replace(environment, token=listed))

    assert error.reason is by_http.reason is Reason.MODEL_TOKEN_NOT_ALLOWED
    assert error.message.startswith("the token is not sent to evil.example.com: ")
    assert [request.url.host for request in requests] == ["evil.example.com", "registry.ai.svc"]


@pytest.mark.parametrize("challenge", ["Basic", 'Bearer realm="https://registry.ai.svc/token"'])
def test_a_password_without_a_user_is_reported(tmp_path: Path, challenge: str) -> None:
    def respond(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    token = replace(TOKEN, value="CANARY", hosts=frozenset({"registry.ai.svc"}))
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        environment = Environment(client, lambda: 0.0, lambda _: None, lambda: 0.0, token=token)
        url = "oci://registry.ai.svc/team/model:v1"
        error = failure(File(url, tmp_path / "m.gguf"), environment)

    assert error.reason is Reason.MODEL_TOKEN_INVALID
    assert error.message.endswith("(model.tokenSecretRef) must be USER:PASSWORD")
    assert "CANARY" not in error.message


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("registry.ai.svc:5000", "set spec.model.oci.plainHttp"),
        ("registry.example.com", "use the port on which it has TLS; only registries of the"),
    ],
)
def test_a_registry_without_tls_is_not_tried_again(tmp_path: Path, host: str, remedy: str) -> None:
    delays: list[float] = []

    def respond(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1000)")

    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        environment = Environment(client, lambda: 0.0, delays.append, lambda: 0.0)
        url = f"oci://{host}/team/model:v1"
        error = failure(File(url, tmp_path / "m.gguf", role="model.mmproj"), environment)

    assert f"/v2/team/model/manifests/v1 failed: the registry responds without TLS: {remedy}" in (
        error.message
    )
    assert not error.transient
    assert delays == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"layers": 1}', b'{"manifests": []}'])
def test_another_server_is_no_registry(
    tls_host: ModelHost, environment: Environment, tmp_path: Path, body: bytes
) -> None:
    tls_host.respond_with(content(body))
    url = tls_host.url.replace("https", "oci").replace("model.gguf", "team/model")

    error = failure(File(url, tmp_path / "m.gguf"), environment)

    assert error.reason is Reason.MODEL_DOWNLOAD_REJECTED
