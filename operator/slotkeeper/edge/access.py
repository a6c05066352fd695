"""Access to a proxy: API keys of requests, their priority, and the headers that are forwarded."""

import re

from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

_INTEGER = re.compile(rb"[+-]?[0-9]{1,9}")
FORWARDED = frozenset(
    (
        b"content-type",
        b"content-encoding",
        b"accept-encoding",
        b"origin",
        b"user-agent",
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"x-request-id",
    )
)
"""Headers that are sent to llama-server, besides Host: those that it reads, and those that identify
a request in logs and traces. Any other one could only do harm. llama-server rejects a request for
an Accept or a Range that it cannot parse; with X-Conversation-Id it would continue decoding after
the client has disconnected, and end another client's request with the same id; and cookies are
nothing that it should ever see."""

PREEMPTIBLE = b"x-preemptible"
"""Header of a request that yields its slot to others: true or false."""

SECRETS = frozenset((b"authorization", b"x-api-key"))
"""Headers that may contain an API key."""


def key_owner(keys: ApiKeys, request: Request) -> str:
    """Return the name of the request's API key. Raises HttpError with status 401."""
    secrets = _secrets(request)
    for secret in secrets:
        name = keys.owner_of(secret)
        if name is not None:
            return name
    if secrets:
        raise unauthorized("invalid API key")
    if request.header(b"authorization"):
        raise unauthorized("no API key in Authorization: expected 'Bearer' and the key")
    raise unauthorized("API key required: send 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'")


def unauthorized(message: str) -> HttpError:
    """401: no valid API key; `message`: why."""
    return HttpError(401, "invalid_api_key", message, headers=[(b"WWW-Authenticate", b"Bearer")])


def priority(request: Request, maximum: int) -> int:
    """Return the value of X-Priority, reduced to -maximum to maximum; 0 without the header.

    `maximum` 0: the header is ignored. Raises HttpError with status 400 if it is no integer.
    """
    value = request.header(b"x-priority") if maximum else None
    if value is None:
        return 0
    if not _INTEGER.fullmatch(value):
        raise HttpError(400, "invalid_priority", "X-Priority must be an integer of up to 9 digits")
    return max(-maximum, min(int(value), maximum))


def preemptible(request: Request) -> bool:
    """Return whether X-Preemptible is `true`. Raises HttpError with status 400 if it is no boolean.

    Every client may set it, because it only lowers the request.
    """
    value = request.header(PREEMPTIBLE)
    if value is None:
        return False
    boolean = value.strip().lower()
    if boolean not in {b"true", b"false"}:
        raise HttpError(400, "invalid_preemptible", "X-Preemptible must be true or false")
    return boolean == b"true"


def _secrets(request: Request) -> list[bytes]:
    scheme, _, secret = (request.header(b"authorization") or b"").partition(b" ")
    bearer = secret.strip() if scheme.lower() == b"bearer" else b""
    return [secret for secret in (bearer, request.header(b"x-api-key") or b"") if secret]
