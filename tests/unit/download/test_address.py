"""No credentials of a URL are in messages, also if it is malformed."""

import pytest

from slotkeeper.download.address import require_allowed
from slotkeeper.download.errors import DownloadError


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
