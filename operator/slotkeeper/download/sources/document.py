"""Small documents that name the files to fetch: lists, manifests and tokens."""

from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.bounded_json import BoundsError, parse
from slotkeeper.download.address import redact, require_allowed
from slotkeeper.download.deadline import in_time, send
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.transfer import rejection, unreachable

DOCUMENT_SECONDS = 60.0
"""Until the end of a document, which is small."""

MAX_VALUES = 100_000
"""Of a document, about: each takes a hundred bytes of memory, even if it has only two itself. A hub
has eight for each file."""


class Document(NamedTuple):
    """The body of a response."""

    body: bytes
    tree: Any
    """Its JSON; None if it is none, or too large."""


def get_document(
    client: httpx.Client,
    url: str,
    *,
    max_bytes: int,
    auth: httpx.Auth | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Document:
    """Return the response to a GET, of which little more than `max_bytes` are read.

    `parameters` are added to the URL's query. Raises DownloadError.
    """
    require_allowed(url)
    sent = {**(headers or {}), "Accept-Encoding": "identity"}
    try:
        request = client.build_request(
            "GET", httpx.URL(url).copy_merge_params(parameters or {}), headers=sent
        )
        with closing(send(client, request, auth)) as response:
            if response.status_code != HTTPStatus.OK:
                raise rejection(url, response)
            body = in_time(
                lambda: _read(response, max_bytes), discard=_ignore, seconds=DOCUMENT_SECONDS
            )
    except httpx.TooManyRedirects:
        raise DownloadError(
            Reason.MODEL_TOO_MANY_REDIRECTS, f"GET {redact(url)} is redirected too often"
        ) from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise unreachable(url, error) from error
    try:
        return Document(body, _tree(body, max_bytes))
    except ValueError:
        return Document(body, None)


def _read(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    # As sent: a few bytes that were compressed, though that was not requested, may be very many.
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > max_bytes:
            break
    return bytes(body)


def _tree(body: bytes, max_bytes: int) -> Any:
    """Parse JSON. Raises ValueError."""
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise BoundsError(f"{values} values, at most {MAX_VALUES}")
    return parse(body, max_bytes=max_bytes)


def _ignore(_body: bytes) -> None:
    pass
