"""s3:// URLs: which URL is requested, for which hosts a key is used, and what is signed."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.sources.s3 import Credentials, Store, read_credentials, resolve, sign

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


@pytest.mark.parametrize("key", ["CANARY CANARY", "", "CANARY\nCANARY", "CÄNARY", None])
def test_an_invalid_key_is_reported_without_it(tmp_path: Path, key: str | None) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("id")
    (tmp_path / "hosts").write_text("a")
    if key is not None:
        (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text(key)

    with pytest.raises(DownloadError) as caught:
        read_credentials(tmp_path, lambda: NOW)

    assert caught.value.reason is Reason.MODEL_TOKEN_INVALID
    assert "model.s3.secretRef" in caught.value.message
    assert "CANARY" not in caught.value.message
