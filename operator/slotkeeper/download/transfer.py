"""One HTTP request for a model's bytes, or for those that are still missing."""

import re
from http import HTTPStatus

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact, require_allowed
from slotkeeper.download.checks import require_gguf_so_far
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.partial_file import PartialFile
from slotkeeper.download.progress import Progress

MAX_REDIRECTS = 5
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Seconds. The read timeout is between two chunks: a download as such may last for hours."""

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def new_client(token: str | None = None) -> httpx.Client:
    """Build the client that downloads: redirects are followed, each checked before it is asked.

    `token` is sent to the host of each URL that is asked for. httpx itself drops Authorization
    where a redirect leads to another host.
    """
    return httpx.Client(
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=TIMEOUT,
        headers={"Authorization": f"Bearer {token}"} if token else None,
        event_hooks={"request": [lambda request: require_allowed(str(request.url))]},
    )


def transfer(client: httpx.Client, url: str, part: PartialFile, progress: Progress) -> None:
    """Bring `part` to its end with one GET, resuming where the server and the part allow it.

    Raises FetchError. What arrived before a break stays in the part.
    """
    answered = False
    try:
        with client.stream("GET", url, headers=_headers(part)) as response:
            answered = True
            _prepare(response, url, part)
            progress.begins(part)
            # Raw: what is counted, hashed and resumed are the bytes as they were sent.
            for chunk in response.iter_raw():
                part.append(chunk)
                require_gguf_so_far(url, part)
                progress.grew(part)
    except httpx.TooManyRedirects:
        raise DownloadError(
            Reason.MODEL_TOO_MANY_REDIRECTS,
            f"GET {redact(url)} led through more than {MAX_REDIRECTS} redirects",
        ) from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise _broken(url, part, error, answered=answered) from error
    if part.total is not None and not part.complete:
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            f"GET {redact(url)} gave {part.size} of {part.total} bytes",
        )


def _headers(part: PartialFile) -> dict[str, str]:
    # A compressed answer has another length, and no ranges.
    headers = {"Accept-Encoding": "identity"}
    if part.size and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    return headers


def _prepare(response: httpx.Response, url: str, part: PartialFile) -> None:
    """Make `part` ready for the bytes of `response`; FetchError where it brings none."""
    match response.status_code:
        case HTTPStatus.OK:
            part.restart(validator=_validator(response), total=_content_length(response))
            if part.total is None and "transfer-encoding" not in response.headers:
                raise DownloadError(
                    Reason.MODEL_SIZE_UNKNOWN,
                    f"GET {redact(url)} gave no Content-Length: "
                    "a broken download would look like a whole one",
                )
        case HTTPStatus.PARTIAL_CONTENT if _continues(response, part):
            pass
        case HTTPStatus.PARTIAL_CONTENT | HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE if part.size:
            part.restart(validator=None, total=None)
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_INCOMPLETE,
                f"GET {redact(url)} answered {_status(response)} with another range than asked: "
                "starting again from the first byte",
            )
        case _:
            raise DownloadError(
                _reason(response.status_code),
                f"GET {_shown_with_redirect(url, response)} answered {_status(response)}"
                + _advice(response),
            )


def _advice(response: httpx.Response) -> str:
    if _reason(response.status_code) is not Reason.MODEL_FORBIDDEN:
        return ""
    first = response.history[0] if response.history else response
    if "authorization" in first.request.headers:
        return ": the token in spec.model.tokenSecretRef is not let in"
    return ": name a Secret with a token in spec.model.tokenSecretRef"


def _reason(status: int) -> Reason:
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return Reason.MODEL_NOT_FOUND
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Reason.MODEL_FORBIDDEN
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.TOO_MANY_REQUESTS:
            return Reason.MODEL_SERVER_ERROR
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Reason.MODEL_SERVER_ERROR
        case _:
            return Reason.MODEL_DOWNLOAD_REJECTED


def _continues(response: httpx.Response, part: PartialFile) -> bool:
    """Whether a 206 brings exactly the bytes that are missing, of the same version."""
    given = CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    return (
        given is not None
        and (int(given[1]), int(given[2])) == (part.size, part.total)
        and _validator(response) in {None, part.validator}
    )


def _validator(response: httpx.Response) -> str | None:
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("last-modified")
    return modified


def _content_length(response: httpx.Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


def _broken(url: str, part: PartialFile, error: Exception, *, answered: bool) -> DownloadError:
    what = str(error) or type(error).__name__
    if not answered:
        return DownloadError(Reason.MODEL_UNREACHABLE, f"GET {redact(url)} got no answer: {what}")
    of = f" of {part.total}" if part.total is not None else ""
    return DownloadError(
        Reason.MODEL_DOWNLOAD_INCOMPLETE,
        f"GET {redact(url)} broke off after {part.size}{of} bytes: {what}",
    )


def _status(response: httpx.Response) -> str:
    return f"{response.status_code} {response.reason_phrase}".strip()


def _shown_with_redirect(url: str, response: httpx.Response) -> str:
    redirected = f" (redirected to {redact(str(response.url))})" if response.history else ""
    return redact(url) + redirected
