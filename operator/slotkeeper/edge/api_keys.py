"""API keys: load them from a folder, and look up the owner of a secret."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from slotkeeper.edge.mounted_folder import Signature, signature_of
from slotkeeper.error_text import describe

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 1.0
_MAX_KEY_BYTES = 4096
"""More than fits in any header that a request may have."""


class ApiKeys:
    """The accepted API keys. Only digests are stored, salted with `salt`."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._names: dict[bytes, tuple[bytes, str]] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> set[str]:
        """The names of the accepted keys."""
        return {name for _, name in self._names.values()}

    def replace(self, keys: Mapping[str, bytes]) -> None:
        """Accept exactly these keys, by name. Of several names for one key the first counts."""
        names: dict[bytes, tuple[bytes, str]] = {}
        for name, secret in sorted(keys.items()):
            digest = self._digest(secret)
            _, first = names.setdefault(digest[:8], (digest, name))
            if first != name:
                _log.warning("API keys %s and %s are identical; using name %s", first, name, first)
        self._names = names

    def owner_of(self, secret: bytes) -> str | None:
        """Return the name of the key `secret`, or None, in a time independent of the keys."""
        digest = self._digest(secret)
        stored, name = self._names.get(digest[:8], (b"", ""))
        return name if hmac.compare_digest(stored, digest) else None

    def _digest(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, digest_size=32, key=self._salt).digest()


class ApiKeyFolder:
    """Keeps `keys` equal to the files in `path`: a file's name is the key's, its content the key.

    Kubernetes mounts a Secret in this way, and updates the files within about a minute. `named` are
    the names of keys that have rules of their own: a misspelled one would have none.
    """

    def __init__(self, path: Path, keys: ApiKeys, named: Collection[str] = ()) -> None:
        self._path = path
        self._named = frozenset(named)
        self._keys = keys
        self._signature: Signature | None = None
        self._last_error = ""

    def set_named(self, named: Collection[str]) -> None:
        """Set the names of keys that have rules of their own."""
        if self._named != frozenset(named):
            self._named = frozenset(named)
            self._warn_of_unknown()

    def load(self) -> None:
        """Read the folder for the first time. Raises OSError with a message for users."""
        try:
            self._apply(*_read_if_changed(self._path, None))
        except OSError as error:
            raise OSError(self._message(error)) from error

    async def watch(self) -> None:
        """Check for changes every second. Never returns. While checks fail, the keys stay."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Check for changes once. Disk I/O runs in a thread, not in the event loop."""
        try:
            self._apply(*await asyncio.to_thread(_read_if_changed, self._path, self._signature))
        except OSError as error:
            message = self._message(error)
            if message != self._last_error:
                _log.warning("%s; keeping the %d loaded keys", message, len(self._keys))
            self._last_error = message
        else:
            self._last_error = ""

    def _apply(self, signature: Signature, keys: dict[str, bytes] | None) -> None:
        self._signature = signature
        if keys is None:
            return
        self._keys.replace(keys)
        self._warn_of_unknown()
        if keys:
            _log.info("API keys loaded: %d", len(self._keys))
        else:
            _log.warning("no API key in %s; rejecting all requests", self._path)

    def _warn_of_unknown(self) -> None:
        unknown = sorted(self._named.difference(self._keys.names))
        if unknown:
            _log.warning("no API key has the name %s, for which a rule is set", ", ".join(unknown))

    def _message(self, error: OSError) -> str:
        return f"cannot read API keys from {self._path}: {describe(error)}"


def _read_if_changed(
    path: Path, last: Signature | None
) -> tuple[Signature, dict[str, bytes] | None]:
    """Return the folder's signature, and its keys, None if the signature is still `last`."""
    # Taken before the files are read: a change in between is then detected by the next check.
    signature = signature_of(path)
    if signature == last:
        return signature, None
    keys: dict[str, bytes] = {}
    for name, *_ in signature:
        with (path / name).open("rb") as file:
            secret = file.read(_MAX_KEY_BYTES + 1).strip()
        if len(secret) > _MAX_KEY_BYTES or len(secret.split()) > 1:
            _log.warning(
                "ignoring file %s in %s: must contain one API key of up to %d bytes",
                name,
                path,
                _MAX_KEY_BYTES,
            )
        elif secret:
            keys[name] = secret
    return signature, keys
