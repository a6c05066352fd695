"""Access control: a request's API key, route, priority and flow, read from its head."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from slotkeeper.balancer import responses
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.edge.routes import PROXIED, Route, is_public, route
from slotkeeper.scheduling import FlowKey
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

_SECRETS = frozenset((b"authorization", b"x-api-key"))


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What clients may request."""

    max_priority: int = 0
    """X-Priority is accepted from -max_priority to max_priority, higher first; 0: it is ignored."""
    max_priorities: Mapping[str, int] = field(default_factory=dict)
    """Higher or lower bounds for some API keys, by their names."""
    allowed_paths: frozenset[bytes] = PROXIED
    """Paths that are proxied, a subset of PROXIED."""


class RequestAccess:
    """Authenticates requests and applies the rules.

    `salt`: for the hashes of unknown secrets, so that they cannot be used to test guesses.
    `keys`: the accepted API keys; None: no key is required.
    """

    def __init__(
        self, rules: AccessRules | None = None, salt: bytes = b"", keys: ApiKeys | None = None
    ) -> None:
        self._rules = rules or AccessRules()
        self._salt = salt
        self._keys = keys
        self.forwarded_headers = FORWARDED if keys is not None else FORWARDED | _SECRETS
        """Headers that are sent to llama-server. API keys only if they are not checked here."""

    def authenticate(self, request: Request) -> str | None:
        """Return the name of the request's API key, None if it needs none.

        Raises HttpError with status 401.
        """
        if self._keys is None or is_public(request.method, request.path):
            return None
        secrets = _secrets(request)
        for secret in secrets:
            name = self._keys.owner_of(secret)
            if name is not None:
                return name
        if secrets:
            raise responses.unauthorized("invalid API key")
        if request.header(b"authorization"):
            raise responses.unauthorized(
                "no API key in Authorization: expected 'Bearer' and the key"
            )
        raise responses.unauthorized(
            "API key required: send 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'"
        )

    def route(self, request: Request) -> Route:
        """Return how the request is served. Raises HttpError with status 404 or 405."""
        return route(request.method, request.path, self._rules.allowed_paths)

    def flow_key(self, request: Request, key_name: str | None = None) -> FlowKey:
        """Return the request's priority, and the key under which it takes turns.

        `key_name`: of its API key. Raises HttpError with status 400 if X-Priority is no integer.
        """
        return FlowKey(self._priority(request, key_name), key_name or self._secret_hash(request))

    def _priority(self, request: Request, key_name: str | None) -> int:
        maximum = self._rules.max_priority
        if key_name is not None:
            maximum = self._rules.max_priorities.get(key_name, maximum)
        if not maximum:
            return 0
        value = request.header(b"x-priority")
        if value is None:
            return 0
        if not _INTEGER.fullmatch(value):
            raise HttpError(
                400, "invalid_priority", "X-Priority must be an integer of up to 9 digits"
            )
        return max(-maximum, min(int(value), maximum))

    def _secret_hash(self, request: Request) -> str:
        # llama-server reads its API key from either.
        secret = request.header(b"authorization") or request.header(b"x-api-key")
        if not secret:
            return ""
        return hashlib.blake2b(secret, digest_size=6, key=self._salt).hexdigest()


def _secrets(request: Request) -> list[bytes]:
    scheme, _, secret = (request.header(b"authorization") or b"").partition(b" ")
    bearer = secret.strip() if scheme.lower() == b"bearer" else b""
    return [secret for secret in (bearer, request.header(b"x-api-key") or b"") if secret]
