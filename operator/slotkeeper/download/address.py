"""URLs of models: validation, and redaction of credentials."""

import hashlib
import re
from urllib.parse import urlsplit, urlunsplit

import httpx

from slotkeeper.api.model_url import hub_address, oci_reference
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

SCHEMES = ("http", "https")


def require_allowed(url: str) -> None:
    """Raise DownloadError (ModelURLNotAllowed) unless `url` is http:// or https:// with a host."""
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in SCHEMES and bool(parts.hostname)
        _ = parts.port  # raises ValueError unless it is a number from 0 to 65535
        if allowed:
            _ = httpx.URL(url).host  # raises UnicodeError if it is no valid name of IDNA
    except (ValueError, httpx.InvalidURL):
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED, "cannot parse the URL of the model"
        ) from None
    if not allowed:
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED,
            f"{redact(url)} is not allowed: the URL of a model, even after a redirect, must be "
            "http://HOST/PATH or https://HOST/PATH",
        )


def require_redirect_allowed(response: httpx.Response) -> None:
    """Raise DownloadError (ModelURLNotAllowed) if a response redirects from https:// to http://,
    into the cluster, or to what is no URL.

    httpx calls it for each response, before it follows a redirect. Its own error would quote a part
    of the URL.
    """
    if not response.has_redirect_location:
        return
    source = redact(str(response.url))
    try:
        target = response.url.join(response.headers["location"])
        _ = target.host  # as above
    except (ValueError, httpx.InvalidURL):
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED, f"{source} redirects to a URL that cannot be parsed"
        ) from None
    if response.url.scheme == "https" and target.scheme == "http":
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED,
            f"{source} redirects to {redact(str(target))}, which is not allowed: others can read "
            "and change what is sent by http://",
        )
    require_not_into_cluster(response.url, target)


def require_not_into_cluster(source: httpx.URL, target: httpx.URL) -> None:
    """Raise DownloadError (ModelURLNotAllowed) if a host beyond the cluster names one of the
    cluster for the next request.

    Services of the server's namespace may have private addresses because a user names them.
    """
    if _is_in_cluster(target) and not _is_in_cluster(source):
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED,
            f"{redact(str(source))} redirects to {redact(str(target))}, which is not allowed: only "
            "hosts of the cluster may redirect to others",
        )


def _is_in_cluster(url: httpx.URL) -> bool:
    # Not decoded: it may be no valid name of IDNA.
    return re.fullmatch(rb".*\.svc(\.cluster\.local)?\.?", url.raw_host) is not None


def redact(url: str) -> str:
    """Return `url` without userinfo, query and fragment, which may contain credentials.

    Nothing of what is no URL, which may be anything.
    """
    try:
        scheme, netloc, path, _, _ = urlsplit(url)
    except ValueError:
        return "[invalid URL]"
    if not netloc:
        # A URL with a mistake, such as https:/USER:PASSWORD@HOST.
        path = path.rpartition("@")[2]
        if path.startswith("/") and url[len(scheme) :].startswith(":///"):
            return f"{scheme}://{path}"
    return urlunsplit((scheme, netloc.rpartition("@")[2], path, "", ""))


def host_of(url: str, hub: str) -> str:
    """Return the name of the host that a URL of a model is sent to; empty if it is no URL. `hub` is
    the address of the hub of hf:// URLs."""
    if hub_address(url):
        url = hub
    elif reference := oci_reference(url):
        url = f"https://{reference.host}"
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def source_id(url: str) -> str:
    """Return the SHA-256 of a URL in hex, which identifies it without its credentials."""
    return hashlib.sha256(url.encode()).hexdigest()
