"""What a backend's response means, and what of it passes through. Pure.

A backend belongs to others. Its cookies, CORS headers and quotas are not for the gateway's clients,
and its 401 is about the gateway's key, not about the client's.
"""

from slotkeeper.gateway.target_config import Trigger
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Response, ResponseHead, value_of

_PASSED = frozenset(
    (
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"content-disposition",
        b"cache-control",
        b"date",
        b"retry-after",
        b"x-request-id",
    )
)
_UNAUTHORIZED = frozenset((401, 403, 407))
_FULL = frozenset((429, 529))
"""529 is Anthropic's for an overloaded service."""
_REDACTED = b"[redacted]"


def filtered(head: ResponseHead) -> ResponseHead:
    """Return the head with the headers that clients may get, and those of its framing."""
    kept = [
        header
        for header in head.headers
        if (name := header[0].lower()) in _PASSED or name == b"connection"
    ]
    return ResponseHead(head.status, head.reason, kept, head.http11)


def rejection(backend: str, head: ResponseHead) -> HttpError | None:
    """Return the error for a response that never passes through; None for all others."""
    if 300 <= head.status < 400:
        return HttpError(
            502,
            "backend_redirected",
            f"backend {backend} responded with a redirect ({head.status}), which is not followed: "
            "correct its url",
        )
    if head.status in _UNAUTHORIZED:
        return HttpError(
            502,
            "backend_unauthorized",
            f"backend {backend} rejected the gateway's API key for it ({head.status}): correct the "
            "Secret that its secretRef names",
        )
    return None


def trigger(status: int) -> Trigger | None:
    """Return the case in which a fallback is for an error response; None: it is for none."""
    if status in _FULL:
        return "Full"
    return "Failed" if status >= 500 else None


def error_response(head: ResponseHead, body: bytes, secret: bytes | None) -> Response | None:
    """Return a complete error response for the client, without the secret.

    None if it cannot be inspected.
    """
    if (value_of(head.headers, b"content-encoding") or b"identity").lower() != b"identity":
        return None
    response = Response(head.status, _redact(body, secret))
    content_type = value_of(head.headers, b"content-type") or b"text/plain"
    response.content_type = _redact(content_type, secret)
    retry_after = value_of(head.headers, b"retry-after")
    if retry_after:
        response.headers.append((b"Retry-After", _redact(retry_after, secret)))
    return response


def _redact(text: bytes, secret: bytes | None) -> bytes:
    return text.replace(secret, _REDACTED) if secret else text
