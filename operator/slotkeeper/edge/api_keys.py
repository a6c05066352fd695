"""API keys: which there are, read from a folder, and whose a secret is."""

import asyncio
import hashlib
import hmac
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 1.0
_MAX_KEY_BYTES = 4096
"""Bytes of a key: more than any header that is taken needs."""

Signature = tuple[tuple[str, int, int, int], ...]


class ApiKeys:
    """The API keys that are taken. They are kept as digests only, salted with `salt`."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._names: dict[bytes, tuple[bytes, str]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def replace(self, keys: Mapping[str, bytes]) -> None:
        """Take these from now on, by name. One that several names share is the first name's."""
        names: dict[bytes, tuple[bytes, str]] = {}
        for name, secret in sorted(keys.items()):
            digest = self._digest(secret)
            _, first = names.setdefault(digest[:8], (digest, name))
            if first != name:
                _log.warning("API keys %s and %s are the same: it counts as %s", first, name, first)
        self._names = names

    def owner_of(self, secret: bytes) -> str | None:
        """Whose `secret` is, or None. How long that takes says nothing of the keys."""
        digest = self._digest(secret)
        known, name = self._names.get(digest[:8], (b"", ""))
        return name if hmac.compare_digest(known, digest) else None

    def _digest(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, digest_size=32, key=self._salt).digest()


class ApiKeyFolder:
    """Keeps `keys` as the files in `path` are: a file's name is the key's, its content the key.

    That is how Kubernetes mounts a Secret, whose new content it puts there within a minute or so.
    """

    def __init__(self, path: Path, keys: ApiKeys) -> None:
        self._path = path
        self._keys = keys
        self._seen: Signature | None = None
        self._last_error = ""

    def load(self) -> None:
        """Read the folder for the first time. Raises OSError with a sentence where it cannot be."""
        try:
            self._take(*_changed(self._path, None))
        except OSError as error:
            raise OSError(self._sentence(error)) from error

    async def watch(self) -> None:
        """Look for changes every second. Never ends: while it cannot look, the keys stay."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Look once, with all that touches the disk beside the event loop."""
        try:
            self._take(*await asyncio.to_thread(_changed, self._path, self._seen))
        except OSError as error:
            trouble = self._sentence(error)
            if trouble != self._last_error:
                _log.warning("%s; the %d known stay", trouble, len(self._keys))
            self._last_error = trouble
        else:
            self._last_error = ""

    def _take(self, seen: Signature, found: dict[str, bytes] | None) -> None:
        self._seen = seen
        if found is None:
            return
        self._keys.replace(found)
        if found:
            _log.info("API keys: %d", len(self._keys))
        else:
            _log.warning("there is no API key in %s: all requests are refused", self._path)

    def _sentence(self, error: OSError) -> str:
        return f"the API keys in {self._path} cannot be read: {error.strerror}"


def _changed(path: Path, seen: Signature | None) -> tuple[Signature, dict[str, bytes] | None]:
    """How the folder looks, and the keys in it, or None where it looks as when it was `seen`."""
    # Before the files are read: a change meanwhile is then seen at the next look.
    signature = tuple(sorted(_files(path)))
    if signature == seen:
        return signature, None
    found: dict[str, bytes] = {}
    for name, *_ in signature:
        with (path / name).open("rb") as file:
            secret = file.read(_MAX_KEY_BYTES + 1).strip()
        if len(secret) > _MAX_KEY_BYTES or len(secret.split()) > 1:
            _log.warning("%s in %s is not taken: a file holds one key and no more", name, path)
        elif secret:
            found[name] = secret
    return signature, found


def _files(path: Path) -> Iterator[tuple[str, int, int, int]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".."):
                continue  # where Kubernetes keeps what the links beside it lead to
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # a link stays for a moment after Kubernetes has taken its file away
            if stat.S_ISREG(status.st_mode):
                yield entry.name, status.st_ino, status.st_size, status.st_mtime_ns
