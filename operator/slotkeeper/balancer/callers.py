"""Whose request it is, and how urgent: read from its head."""

import hashlib
import re

from slotkeeper.balancer.policy import Standing
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.message import Request

_INTEGER = re.compile(rb"[+-]?[0-9]{1,9}")


class Callers:
    """Tells requests apart by the secret that they carry, and reads the priority they ask for.

    `max_priority`: requests may ask for -max_priority to max_priority, higher goes first; 0: all
    are alike. `salt`: makes the keys worthless to who wants to test guesses of a secret on them.
    """

    def __init__(self, max_priority: int = 0, salt: bytes = b"") -> None:
        self._max_priority = max_priority
        self._salt = salt

    def standing(self, request: Request) -> Standing:
        """The request's priority and its key. Raises Refusal where the priority is no integer."""
        return Standing(self._priority(request), self._key(request))

    def _priority(self, request: Request) -> int:
        if not self._max_priority:
            return 0
        value = request.header(b"x-priority")
        if value is None:
            return 0
        if not _INTEGER.fullmatch(value):
            raise Refusal(400, "bad_priority", "X-Priority must be an integer of up to 9 digits")
        return max(-self._max_priority, min(int(value), self._max_priority))

    def _key(self, request: Request) -> str:
        # llama-server takes its API key from either.
        secret = request.header(b"authorization") or request.header(b"x-api-key")
        if not secret:
            return ""
        return hashlib.blake2b(secret, digest_size=8, key=self._salt).hexdigest()
