"""Who asks, whether they may, for what, and how urgent it is: read from a request's head."""

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
_SECRETS = frozenset((b"authorization", b"x-api-key"))


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What those who ask may ask for.

    `max_priority`: a priority from -max_priority to max_priority, higher goes first; 0: all are
    alike. `max_priorities`: the same for some API keys by name, which may have more or less.
    `routes`: which of the paths that can be passed on are.
    """

    max_priority: int = 0
    max_priorities: Mapping[str, int] = field(default_factory=dict)
    allowed_paths: frozenset[bytes] = PROXIED


class RequestAccess:
    """Tells requests apart by the secret that they carry, and holds them to the rules.

    `salt`: makes the keys worthless to who wants to test guesses of a secret on them. `keys`: the
    secrets that are taken; None: all are.
    """

    def __init__(
        self, rules: AccessRules | None = None, salt: bytes = b"", keys: ApiKeys | None = None
    ) -> None:
        self._rules = rules or AccessRules()
        self._salt = salt
        self._keys = keys
        self.stripped_headers = _SECRETS if keys is not None else frozenset[bytes]()
        """Headers that llama-server has no use for, and might log."""

    def authenticate(self, request: Request) -> str | None:
        """The name of the request's API key; None where it needs none. Raises Refusal with 401."""
        if self._keys is None or is_public(request.method, request.path):
            return None
        secrets = _secrets(request)
        for secret in secrets:
            name = self._keys.owner_of(secret)
            if name is not None:
                return name
        if secrets:
            raise responses.unauthorized("the API key is not known here")
        if request.header(b"authorization"):
            raise responses.unauthorized(
                "Authorization holds no API key: it must be Bearer and a key"
            )
        raise responses.unauthorized(
            "an API key is needed, in the header Authorization (Bearer and the key) or X-Api-Key"
        )

    def route(self, request: Request) -> Route:
        """What happens with the request. Raises Refusal with 404 or 405."""
        return route(request.method, request.path, self._rules.allowed_paths)

    def flow_key(self, request: Request, name: str | None = None) -> FlowKey:
        """The priority of a request with the API key `name`, and the key whose turns it takes.

        Raises Refusal where the priority is no integer.
        """
        return FlowKey(self._priority(request, name), name or self._key(request))

    def _priority(self, request: Request, name: str | None) -> int:
        most = self._rules.max_priority
        if name is not None:
            most = self._rules.max_priorities.get(name, most)
        if not most:
            return 0
        value = request.header(b"x-priority")
        if value is None:
            return 0
        if not _INTEGER.fullmatch(value):
            raise HttpError(
                400, "invalid_priority", "X-Priority must be an integer of up to 9 digits"
            )
        return max(-most, min(int(value), most))

    def _key(self, request: Request) -> str:
        # llama-server takes its API key from either.
        secret = request.header(b"authorization") or request.header(b"x-api-key")
        if not secret:
            return ""
        return hashlib.blake2b(secret, digest_size=6, key=self._salt).hexdigest()


def _secrets(request: Request) -> list[bytes]:
    scheme, _, secret = (request.header(b"authorization") or b"").partition(b" ")
    found = [secret.strip()] if scheme.lower() == b"bearer" else []
    found.append(request.header(b"x-api-key") or b"")
    return [each for each in found if each]
