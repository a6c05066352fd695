"""s3:// URLs: which URL is requested, for which hosts a key is used, and what is signed."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gguf_files import gguf
from model_host import content, model_host, redirect
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.sources.s3 import (
    ENTRIES,
    Credentials,
    Store,
    read_credentials,
    resolve,
    sign,
)

NOW = datetime(2013, 5, 24, tzinfo=UTC)
KEY = Credentials(
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    frozenset({"s3.us-east-1.amazonaws.com"}),
    lambda: NOW,
)


@pytest.mark.parametrize(
    ("store", "url"),
    [
        (Store(), "https://models.s3.us-east-1.amazonaws.com/a/b%2Bc.gguf"),
        (
            Store(region="eu-central-1", path_style=True),
            "https://s3.eu-central-1.amazonaws.com/models/a/b%2Bc.gguf",
        ),
        (Store("http://minio.ai.svc:9000/"), "http://models.minio.ai.svc:9000/a/b%2Bc.gguf"),
        (
            Store("https://[fd00::1]:9000", path_style=True),
            "https://[fd00::1]:9000/models/a/b%2Bc.gguf",
        ),
    ],
)
def test_the_bucket_is_in_the_host_or_in_the_path(store: Store, url: str) -> None:
    [file] = resolve(File("s3://models/a/b+c.gguf", Path("/m.gguf")), store)

    assert file.url == url


def test_a_signature_has_its_fixed_form() -> None:
    request = httpx.Request("GET", "https://examplebucket.s3.amazonaws.com/test.txt")

    sign(request, KEY, "us-east-1")

    scope, names, signature = request.headers["authorization"].split(", ")
    assert scope == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
    )
    assert names == "SignedHeaders=host;x-amz-content-sha256;x-amz-date"
    assert len(signature) == len("Signature=") + 64
    assert request.headers["x-amz-date"] == "20130524T000000Z"
    assert KEY.secret_access_key not in str(request.headers.raw)


def test_a_key_is_used_for_its_hosts_only() -> None:
    file = File("s3://models/a.gguf", Path("/m.gguf"))

    assert resolve(file, Store(credentials=KEY))
    with pytest.raises(DownloadError) as caught:
        resolve(file, Store("https://evil.example.com", credentials=KEY))

    assert caught.value.reason is Reason.MODEL_TOKEN_NOT_ALLOWED
    assert "the access key is not used for evil.example.com" in caught.value.message


def test_a_session_token_is_signed() -> None:
    request = httpx.Request("GET", "https://examplebucket.s3.amazonaws.com/test.txt")

    sign(request, replace(KEY, session_token="session"), "us-east-1")

    assert request.headers["x-amz-security-token"] == "session"
    assert (
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"
        in (request.headers["authorization"])
    )


def test_a_session_token_is_not_sent_to_a_host_that_the_store_redirects_to(
    client: httpx.Client, tmp_path: Path
) -> None:
    key = replace(KEY, session_token="CANARY", hosts=frozenset({"127.0.0.1"}))
    with model_host() as store, model_host() as other:
        store.respond_with(redirect(other.url.replace("127.0.0.1", "localhost")))
        other.respond_with(content(gguf({"a": 1})))
        endpoint = store.url.removesuffix("/model.gguf")
        [file] = resolve(
            File("s3://models/model.gguf", tmp_path / "m.gguf"),
            Store(endpoint, path_style=True, credentials=key),
        )
        response = client.get(file.url, auth=file.auth)

    assert response.status_code == 200
    assert store.requests[0]["x-amz-security-token"] == "CANARY"
    assert "x-amz-security-token" not in other.requests[0]


def test_a_session_token_is_an_optional_entry(tmp_path: Path) -> None:
    for name in ENTRIES:
        (tmp_path / name).write_text("a")
    path = tmp_path / "AWS_SESSION_TOKEN"

    assert read_credentials(tmp_path, path, now=lambda: NOW).session_token is None
    path.write_text("session\n")
    assert read_credentials(tmp_path, path, now=lambda: NOW).session_token == "session"
    path.write_text("CANARY CANARY")
    with pytest.raises(DownloadError) as caught:
        read_credentials(tmp_path, path, now=lambda: NOW)
    assert "CANARY" not in caught.value.message


@pytest.mark.parametrize("key", ["CANARY CANARY", "", "CANARY\nCANARY", "CÄNARY", None])
def test_an_invalid_key_is_reported_without_it(tmp_path: Path, key: str | None) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("id")
    (tmp_path / "hosts").write_text("a")
    if key is not None:
        (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text(key)

    with pytest.raises(DownloadError) as caught:
        read_credentials(tmp_path, now=lambda: NOW)

    assert caught.value.reason is Reason.MODEL_TOKEN_INVALID
    assert "model.s3.secretRef" in caught.value.message
    assert "CANARY" not in caught.value.message


@pytest.mark.parametrize(
    ("date", "end"),
    [
        ("Fri, 24 May 2013 00:20:00 GMT", ": the clock of the node is wrong by -20 minutes"),
        ("Thu, 23 May 2013 00:00:00 GMT", ": the clock of the node is wrong by +1440 minutes"),
        ("Fri, 24 May 2013 00:10:00 GMT", "is not accepted, or may not read the object"),
        ("soon", "is not accepted, or may not read the object"),
    ],
)
def test_a_wrong_clock_is_reported(tmp_path: Path, date: str, end: str) -> None:
    def reject(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, headers={"Date": date})

    with httpx.Client(transport=httpx.MockTransport(reject)) as client:
        environment = Environment(
            client, lambda: 0.0, lambda _: None, lambda: 0.0, store=Store(credentials=KEY)
        )
        with pytest.raises(DownloadError) as caught:
            download(File("s3://models/m.gguf", tmp_path / "m.gguf"), environment)

    assert caught.value.reason is Reason.MODEL_FORBIDDEN
    assert caught.value.message.endswith(end)
