"""Reads the bearer token for downloads, which is never logged or reported."""

import re
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

MAX_CHARACTERS = 16_384


def read_token(path: Path) -> str:
    """Return the token in a file, without surrounding white space.

    Raises DownloadError if it is missing or not valid in an HTTP header: the error of an HTTP
    library would quote it.
    """
    try:
        text = path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            f"cannot read the token for downloads (model.tokenSecretRef): "
            f"{error.strerror or error}",
        ) from None
    except UnicodeDecodeError:
        text = ""
    if not re.fullmatch("[!-~]+", text) or len(text) > MAX_CHARACTERS:
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            "the entry of the Secret (model.tokenSecretRef) is not a token: it must be one line of "
            "printable ASCII without spaces",
        )
    return text
