"""The token that downloads may need: read from a file, and shown to nobody but the host."""

import re
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

LONGEST = 16_384


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it.

    Raises FetchError where there is none, or one that no header can hold: it must never come so far
    that an HTTP library quotes it.
    """
    try:
        text = path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            f"cannot read the token for downloads: {error.strerror or error}",
        ) from None
    except UnicodeDecodeError:
        text = ""
    if not re.fullmatch("[!-~]+", text) or len(text) > LONGEST:
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            "the Secret's entry (model.tokenSecretRef) is no token: it must be one line of "
            "printable ASCII without blanks",
        )
    return text
