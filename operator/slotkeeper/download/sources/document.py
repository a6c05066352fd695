"""Small documents that name the files to fetch: lists, manifests and tokens."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.bounded_json import parse
from slotkeeper.download.address import redact
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.transfer import rejection, unreachable


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
    # Compressed, a response would be larger than what is read of it.
    sent = {**(headers or {}), "Accept-Encoding": "identity"}
    body = bytearray()
    try:
        with client.stream(
            "GET",
            httpx.URL(url).copy_merge_params(parameters or {}),
            headers=sent,
            auth=auth or httpx.USE_CLIENT_DEFAULT,
        ) as response:
            if response.status_code != HTTPStatus.OK:
                raise rejection(url, response)
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    break
    except httpx.TooManyRedirects:
        raise DownloadError(
            Reason.MODEL_TOO_MANY_REDIRECTS, f"GET {redact(url)} is redirected too often"
        ) from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise unreachable(url, error) from error
    try:
        return Document(bytes(body), parse(bytes(body), max_bytes=max_bytes))
    except ValueError:
        return Document(bytes(body), None)
