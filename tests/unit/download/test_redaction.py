"""A credential is found however a message quotes it."""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from slotkeeper.download.redaction import Redaction

SECRET = "pa/ss+wo'rd\\\"1"


@pytest.mark.parametrize(
    "form",
    [
        str,
        quote,
        lambda text: quote(text, safe=""),
        lambda text: ascii(text)[1:-1],
        lambda text: b64encode(text.encode()).decode(),
    ],
    ids=["as it is", "path", "query", "escaped", "base64"],
)
def test_no_form_of_a_credential_remains(tmp_path: Path, form: Callable[[str], str]) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")

    assert Redaction([tmp_path / "token"])(f"a {form(SECRET)} b") == "a [redacted] b"
