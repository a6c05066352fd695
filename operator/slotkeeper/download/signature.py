"""Signed (presigned) URLs of object stores, which expire."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

SESSION_TOKEN = "x-amz-security-token"  # noqa: S105 (the name of a header)
"""Of a temporary access key of an object store."""

_SIGNATURES = {"x-amz-signature", "x-goog-signature", "signature", "sig"}
"""Parameters of S3, Google Cloud Storage, CloudFront and older S3, and Azure."""

_ISO_8601_BASIC = "%Y%m%dT%H%M%S%z"

_MAX_SKEW = timedelta(minutes=15)
"""Of clocks, that object stores accept."""


def is_signed(url: str) -> bool:
    """Whether a URL contains a signature."""
    return not _SIGNATURES.isdisjoint(_query(url))


def expiry(url: str) -> datetime | None:
    """Return the time in UTC at which a signed URL expires; None if it does not specify it."""
    try:
        expires = _stated_expiry(_query(url))
        # Here, where a time that is before the year 1 in UTC is caught.
        return expires and expires.astimezone(UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def clock_skew(signed: str, now: datetime | None) -> timedelta:
    """Return how far the clock was ahead with which a request was signed at `signed`, if a store
    rejects that; else zero. `now` is the store's time."""
    try:
        skew = datetime.strptime(signed, _ISO_8601_BASIC) - now if now else timedelta()
    except ValueError:
        skew = timedelta()
    return skew if abs(skew) > _MAX_SKEW else timedelta()


def _stated_expiry(query: Mapping[str, str]) -> datetime | None:
    for vendor in ("x-amz", "x-goog"):
        if f"{vendor}-date" in query:
            signed = datetime.strptime(query[f"{vendor}-date"], _ISO_8601_BASIC)
            return signed + timedelta(seconds=int(query[f"{vendor}-expires"]))
    if "se" in query:
        expires = datetime.fromisoformat(query["se"])
        return expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    if "expires" in query:
        return datetime.fromtimestamp(int(query["expires"]), UTC)
    return None


def _query(url: str) -> dict[str, str]:
    """The parameters of a URL, by their names in lower case."""
    return {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
