"""No credentials of a URL are in messages, also if it is malformed."""

from pathlib import Path

import pytest

from slotkeeper.download.address import require_allowed
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.sources.http import resolve


@pytest.mark.parametrize(
    "url",
    [
        "user:PLANTED@host/m.gguf",
        "https:/user:PLANTED@host/m.gguf",
        "https:user:PLANTED@host/m.gguf",
        "https:\\\\user:PLANTED@host/m.gguf",
        "https://user:PLANTED/x@host/m.gguf",
        "https://user:PLANTED#x@host/m.gguf",
        "ftp://user:PLANTED@host/m.gguf",
        "hf://user:PLANTED@org/model/m.gguf",
        "https://[user:PLANTED@host/m.gguf",
        "https:m.gguf?sig=PLANTED",
    ],
)
def test_a_url_that_is_rejected_is_quoted_without_credentials(url: str) -> None:
    with pytest.raises(DownloadError) as caught:
        require_allowed(url)

    assert "PLANTED" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("hf://org", "hf://ORG/REPOSITORY/FILE.gguf"),
        ("hf://user:PLANTED@org/model/m.gguf", "hf://ORG/REPOSITORY/FILE.gguf"),
        ("s3://bucket", "s3://BUCKET/KEY"),
        ("oci://user:PLANTED@ghcr.io/../team", "oci://REGISTRY/REPOSITORY:TAG"),
    ],
)
def test_a_malformed_url_of_another_source_is_reported_with_its_form(url: str, form: str) -> None:
    with pytest.raises(DownloadError) as caught:
        resolve(File(url, Path("m.gguf")))

    assert f" is not {form}" in caught.value.message
    assert "PLANTED" not in caught.value.message
