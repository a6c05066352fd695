"""Model URLs: which are allowed, and how they are shown without their secrets."""

import hashlib
from urllib.parse import urlsplit, urlunsplit

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

SCHEMES = ("http", "https")


def require_allowed(url: str) -> None:
    """Raise FetchError (URL_REFUSED) unless `url` is http:// or https:// with a host."""
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in SCHEMES and bool(parts.hostname)
        _ = parts.port  # raises where it is no number from 0 to 65535
    except ValueError:
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED, "the model's URL cannot be parsed"
        ) from None
    if not allowed:
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED,
            f"{redact(url)} is refused: a model's URL is http://HOST/PATH or https://HOST/PATH, "
            "also after a redirect",
        )


def redact(url: str) -> str:
    """`url`, an allowed one, without userinfo, query and fragment: all three carry credentials."""
    scheme, netloc, path, _, _ = urlsplit(url)
    return urlunsplit((scheme, netloc.rpartition("@")[2], path, "", ""))


def source_id(url: str) -> str:
    """Tell one URL from another without keeping what is secret in it: sha256 in hex."""
    return hashlib.sha256(url.encode()).hexdigest()
