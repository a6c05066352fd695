"""HTTP requests for the bytes of a file, or for its missing bytes."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact, require_allowed, require_redirect_allowed
from slotkeeper.download.authorities import tls_context
from slotkeeper.download.body import TIMEOUT, blocks, is_chunked
from slotkeeper.download.checks import require_gguf_so_far
from slotkeeper.download.connection_speed import ConnectionSpeed
from slotkeeper.download.deadline import send
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import TOKEN, RemoteFile
from slotkeeper.download.network import Network, direct, proxied
from slotkeeper.download.partial_file import PartialFile
from slotkeeper.download.progress import Progress
from slotkeeper.download.ranges import (
    SEGMENT_BYTES,
    Connections,
    Source,
    Version,
    in_order,
)
from slotkeeper.download.records import SENDABLE
from slotkeeper.download.rejections import remembered, require_not_rejected
from slotkeeper.download.signature import SESSION_TOKEN, clock_skew, expiry, is_signed
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.token import Token
from slotkeeper.error_text import describe

MAX_REDIRECTS = 5

COMPRESSIONS = {"gzip", "x-gzip", "deflate", "compress", "br", "zstd"}
"""Others, such as aws-chunked, are stored with objects by mistake, and do not change the bytes."""

CONTENT_RANGE = re.compile("bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19})")


def new_client(
    token: Token | None = None,
    ca_file: Path | None = None,
    network: Network = Network(),  # noqa: B008 (frozen)
    ca_certificates: str = "",
    ca_config_map: str | None = None,
) -> httpx.Client:
    """Return an HTTP client that follows redirects, and checks the URL and the address of each
    request.

    `token` is sent to the host of each requested URL, if it may be. httpx drops Authorization when
    a redirect leads to another host. `ca_file` and `ca_certificates` (PEM) have certificate
    authorities to trust, in addition to the public ones; `ca_config_map` names where `ca_file` is
    from. Proxies are those of HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

    Raises DownloadError (ModelCAInvalid).
    """
    checks: list[Callable[[httpx.Request], None]] = [
        lambda request: require_allowed(str(request.url)),
        keep_session_token,
    ]
    if token:
        checks.append(token.require_allowed)
    context = tls_context(ca_file, ca_certificates, ca_config_map)
    return httpx.Client(
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=TIMEOUT,
        transport=direct(network, context),
        mounts=proxied(network, context),
        headers={"Authorization": f"Bearer {token.value}"} if token else None,
        # None are kept, as by curl: a host could add some with each response.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        event_hooks={"request": checks, "response": [require_redirect_allowed]},
    )


def keep_session_token(request: httpx.Request) -> None:
    """Remove the session token of an object store from a request to another host.

    After a redirect to one, httpx removes Authorization, but no other header.
    """
    if "authorization" not in request.headers:
        request.headers.pop(SESSION_TOKEN, None)


def transfer(
    client: httpx.Client,
    file: RemoteFile,
    part: PartialFile,
    progress: Progress,
    limits: StorageLimits,
    connections: Connections,
) -> None:
    """Complete `part`, resuming it if the server and the partial file support it.

    There is one GET, and if the host supports ranges of this version of the file, one for each
    further segment. Raises DownloadError. Bytes that were received before an interruption are kept.
    """
    url = file.url
    responded = False
    try:
        request = client.build_request("GET", url, headers=_headers(part))
        with closing(send(client, request, file.auth)) as response:
            responded = True
            _prepare(response, file, part)
            require_not_rejected(file, part)
            limits.require_announced(url, part)
            progress.started(part)
            # Not to a host that the first one has redirected to.
            auth_of_segments = file.auth if response.url == httpx.URL(url) else None
            source = Source(client, response, auth_of_segments, progress.clock)
            for chunk in _bytes(source, part, connections):
                limits.require_room(url, part, len(chunk))
                with remembered(file, part):
                    part.append(chunk)
                    require_gguf_so_far(file, part)
                progress.received(part)
                if file.header_only and part.header_accepted:
                    return
    except httpx.TooManyRedirects:
        raise DownloadError(
            Reason.MODEL_TOO_MANY_REDIRECTS,
            f"GET {redact(url)} exceeded {MAX_REDIRECTS} redirects",
        ) from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise _interrupted(url, part, error, responded=responded) from error
    if part.total is not None and not part.complete:
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            f"GET {redact(url)} returned {part.size} of {part.total} bytes",
        )


def _bytes(
    source: Source, part: PartialFile, connections: Connections
) -> Iterator[bytes | memoryview]:
    """Yield the missing bytes in order: from the first response, or if that is slow, by several
    connections. A block is valid until the next but one is requested."""
    response = source.first
    end = part.size + SEGMENT_BYTES
    supported = (
        response.status_code == HTTPStatus.PARTIAL_CONTENT
        or response.headers.get("accept-ranges", "").lower() == "bytes"
    )
    if (
        connections.maximum == 1
        or not supported
        or part.validator is None
        or part.total is None
        or part.total - end < SEGMENT_BYTES
    ):
        yield from blocks(response, source.clock)
        return

    def require_range(each: httpx.Response, start: int) -> None:
        if each.status_code not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            connections.reduce()
            rejected = rejection(str(each.request.url), each)
            # The first request was accepted: whether this is permanent, the next one shows.
            raise DownloadError(
                rejected.reason if rejected.transient else Reason.MODEL_SERVER_ERROR,
                rejected.message,
                retry_after=rejected.retry_after,
            )
        if not _has_range(each, part, start):
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_INCOMPLETE,
                f"GET {redact(str(each.request.url))} returned {_status(each)} with another range "
                "or version of the file than requested",
            )

    version = Version(part.validator, require_range)
    # The header first: other segments are requested only once the beginning has been accepted.
    position = part.size
    speed = ConnectionSpeed(source.clock, connections.fast)
    try:
        for block in blocks(response, source.clock):
            yield block
            position += len(block)
            if not speed.received(len(block)) and position >= end:
                break
    except httpx.TransportError:
        if position == end - SEGMENT_BYTES:
            raise
    response.close()
    yield from in_order(source, version, position, part.total, connections.maximum)


def _headers(part: PartialFile) -> dict[str, str]:
    # A compressed response has another length, and does not support ranges.
    headers = {"Accept-Encoding": "identity"}
    if part.size and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    return headers


def _prepare(response: httpx.Response, file: RemoteFile, part: PartialFile) -> None:
    """Prepare `part` for the bytes of `response`. Raises DownloadError if it has none."""
    url = file.url
    match response.status_code:
        case HTTPStatus.OK:
            part.restart(validator=_sendable(response), total=_content_length(response))
            if part.total is None and not is_chunked(response):
                raise DownloadError(
                    Reason.MODEL_SIZE_UNKNOWN,
                    f"GET {redact(url)} returned no Content-Length: an interrupted download would "
                    "look complete",
                )
            _require_uncompressed(response, url)
        case HTTPStatus.PARTIAL_CONTENT if _continues(response, part):
            pass
        case HTTPStatus.PARTIAL_CONTENT | HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE if part.size:
            part.restart(validator=None, total=None)
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_INCOMPLETE,
                f"GET {redact(url)} returned {_status(response)} with a range that was not "
                "requested: restarting from the first byte",
            )
        case _:
            raise rejection(url, response, file.credentials)


def _require_uncompressed(response: httpx.Response, url: str) -> None:
    encoding = response.headers.get("content-encoding", "").lower()
    if encoding in COMPRESSIONS:
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_REJECTED,
            f"GET {redact(url)} returned a compressed file (Content-Encoding: {encoding}), which "
            "was not requested: it cannot be resumed and verified, store it uncompressed",
        )


def rejection(url: str, response: httpx.Response, credentials: str = TOKEN) -> DownloadError:
    """Return the error of a response without the file. `credentials`: as in RemoteFile."""
    return DownloadError(
        _reason(response),
        f"GET {_redact_with_redirect(url, response)} returned {_status(response)}"
        + _remedy(response, credentials),
        retry_after=_retry_after(response),
    )


def _remedy(response: httpx.Response, credentials: str) -> str:
    first = response.history[0] if response.history else response
    sent = first.request.headers.get("authorization", "")
    signed = is_signed(str(response.request.url))
    match response.status_code:
        case HTTPStatus.FORBIDDEN if signed:
            return _remedy_of_signed_url(response)
        case HTTPStatus.BAD_REQUEST if signed and "authorization" in response.request.headers:
            return ": a signed URL needs no token: remove spec.model.tokenSecretRef"
        case _ if sent.startswith("AWS4"):
            return _remedy_of_store(response, has_session=SESSION_TOKEN in first.request.headers)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN if sent:
            return ": the token in spec.model.tokenSecretRef is not accepted"
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return f": set {credentials}"
        case _:
            return ""


def _remedy_of_store(response: httpx.Response, *, has_session: bool) -> str:
    if has_session and response.status_code == HTTPStatus.BAD_REQUEST:
        return (
            ": the session token in spec.model.s3.secretRef has expired or is of another access "
            "key, or spec.model.s3.region is not that of the bucket"
        )
    signed = response.request.headers.get("x-amz-date", "")
    skew = clock_skew(signed, _date(response.headers.get("date")))
    if skew and response.status_code == HTTPStatus.FORBIDDEN:
        return f": the clock of the node is wrong by {skew.total_seconds() / 60:+.0f} minutes"
    return _REMEDIES_OF_STORE.get(response.status_code, "")


_REMEDIES_OF_STORE: Mapping[int, str] = {
    HTTPStatus.MOVED_PERMANENTLY: ": spec.model.s3.region is not that of the bucket",
    HTTPStatus.BAD_REQUEST: ": spec.model.s3.region is not that of the bucket",
    HTTPStatus.FORBIDDEN: (
        ": the access key in spec.model.s3.secretRef is not accepted, or may not read the object"
    ),
}


def _remedy_of_signed_url(response: httpx.Response) -> str:
    expires = expiry(str(response.request.url))
    now = _date(response.headers.get("date"))
    remedy = "" if response.history else ", sign the URL again, or use one that does not expire"
    if expires and now and expires < now:
        return f": the signed URL expired at {expires:%Y-%m-%dT%H:%M:%SZ}{remedy}"
    return f": the signature in the URL is not accepted{remedy}"


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds of the header Retry-After; 0 without a valid one."""
    value = response.headers.get("retry-after", "")
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    # A date is compared with the host's own clock.
    until, now = _date(value), _date(response.headers.get("date"))
    return max(0.0, (until - now).total_seconds()) if until and now else 0.0


def _date(value: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _reason(response: httpx.Response) -> Reason:
    status = response.status_code
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return Reason.MODEL_NOT_FOUND
        case HTTPStatus.FORBIDDEN if response.history and is_signed(str(response.request.url)):
            # The next try is redirected to a URL with a new signature.
            return Reason.MODEL_SERVER_ERROR
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Reason.MODEL_FORBIDDEN
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.TOO_MANY_REQUESTS:
            return Reason.MODEL_SERVER_ERROR
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Reason.MODEL_SERVER_ERROR
        case _:
            return Reason.MODEL_DOWNLOAD_REJECTED


def _continues(response: httpx.Response, part: PartialFile) -> bool:
    """Whether a 206 has exactly the missing bytes of the same version."""
    return _has_range(response, part, part.size)


def _has_range(response: httpx.Response, part: PartialFile, start: int) -> bool:
    content_range = CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    return (
        response.status_code == HTTPStatus.PARTIAL_CONTENT
        and content_range is not None
        and (int(content_range[1]), int(content_range[2])) == (start, part.total)
        and _validator(response) in {None, part.validator}
    )


def _validator(response: httpx.Response) -> str | None:
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("last-modified")
    return modified


def _sendable(response: httpx.Response) -> str | None:
    """Return the validator if a request may contain it: some hosts send bytes beyond ASCII."""
    validator = _validator(response)
    return validator if validator and SENDABLE.fullmatch(validator) else None


def _content_length(response: httpx.Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "SSL: HTTP_REQUEST")
"""What OpenSSL reports where another protocol responds to a handshake."""


def unreachable(url: str, error: Exception) -> DownloadError:
    """Return the error of a request without a response."""
    details = _describe(error)
    reason = Reason.MODEL_UNREACHABLE
    no_tls = any(each in details for each in _NO_TLS)
    if no_tls:
        details = (
            "it responds without TLS: use http://, or the port on which it has TLS; or the proxy "
            "does, if the URL of that begins with https://"
        )
    if "CERTIFICATE_VERIFY_FAILED" in details:
        reason = Reason.MODEL_CERTIFICATE_NOT_TRUSTED
        details += "; set spec.model.download.caConfigMapRef if its authority is private"
    return DownloadError(reason, f"GET {redact(url)} failed: {details}", no_tls=no_tls)


def _interrupted(
    url: str, part: PartialFile, error: Exception, *, responded: bool
) -> DownloadError:
    if not responded:
        return unreachable(url, error)
    details = _describe(error)
    total = f" of {part.total}" if part.total is not None else ""
    return DownloadError(
        Reason.MODEL_DOWNLOAD_INCOMPLETE,
        f"GET {redact(url)} was interrupted after {part.size}{total} bytes: {details}",
    )


def _describe(error: Exception) -> str:
    # Without the bytes of an invalid response, which may contain anything.
    return re.sub(r": ?(bytearray\(|b['\"]).*", "", describe(error), flags=re.DOTALL)


def _status(response: httpx.Response) -> str:
    # Not the phrase of the host, which may contain anything.
    phrases = {each.value: each.phrase for each in HTTPStatus}
    return f"{response.status_code} {phrases.get(response.status_code, '')}".strip()


def _redact_with_redirect(url: str, response: httpx.Response) -> str:
    first, last = redact(url), redact(str(response.url))
    # Without a redirect, a request that was authenticated has a history too.
    return f"{first} (redirected to {last})" if response.history and last != first else first
