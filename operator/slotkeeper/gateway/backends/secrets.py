"""API keys and certificate authorities of backends, from folders that Kubernetes mounts."""

import asyncio
import logging
import re
import ssl
from collections.abc import Iterable
from pathlib import Path

from slotkeeper.api.backend_folders import CA_FILE, HOSTS_FILE, KEY_FILE
from slotkeeper.api.secret_hosts import hosts_in
from slotkeeper.error_text import describe
from slotkeeper.gateway.target_config import Backend

_log = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0
_MAX_BYTES = 1024 * 1024  # the size of a Secret
_KEY = re.compile(rb"[!-~]{1,4096}")


class BadSecret(Exception):  # noqa: N818 (the Secret is bad; nothing failed here)
    """A Secret is not as it must be."""


class BackendSecrets:
    """The secrets of backends in `root`; None: there are none.

    A Secret that is missing or not valid affects only its own backend.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._backends: tuple[Backend, ...] = ()
        self._keys: dict[str, bytes] = {}
        self._authorities: dict[str, bytes] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}  # by backend with authorities of its own
        self._system: ssl.SSLContext | None = None
        self._errors: dict[str, str] = {}

    def key(self, backend: Backend) -> bytes | None:
        """Return the API key of a backend; None if it has none, or if that could not be read."""
        return self._keys.get(backend.name) if backend.has_key else None

    async def context(self, backend: Backend) -> ssl.SSLContext:
        """Return what verifies a backend's certificate. Raises OSError if that cannot be read."""
        if backend.has_ca:
            context = self._contexts.get(backend.name)
            if context is None:
                raise OSError(
                    "its certificate authorities cannot be read: check the Secret that its "
                    "caSecretRef names"
                )
            return context
        if self._system is None:
            # The image's list is parsed for tens of milliseconds.
            self._system = await asyncio.to_thread(_client_context, None)
        return self._system

    async def set(self, backends: Iterable[Backend]) -> None:
        """Set the backends, and read their secrets."""
        self._backends = tuple(each for each in backends if each.has_key or each.has_ca)
        await self.check()

    async def watch(self) -> None:
        """Check for changes every five seconds. Never returns."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Read all files once, and apply what has changed. What cannot be read is missing."""
        backends = self._backends
        if not backends:
            self._keys, self._authorities, self._contexts, self._errors = {}, {}, {}, {}
            return
        keys, authorities, errors = await asyncio.to_thread(self._read, backends)
        if backends is not self._backends:
            return
        contexts = {
            name: context
            for name, context in self._contexts.items()
            if authorities.get(name) == self._authorities.get(name)
        }
        for name, text in authorities.items():
            if name in contexts:
                continue
            try:
                contexts[name] = await asyncio.to_thread(_client_context, text)
            except (ssl.SSLError, ValueError) as error:
                errors[name] = f"the certificate authorities are not valid: {describe(error)}"
        for name, message in errors.items():
            if self._errors.get(name) != message:
                _log.warning("backend %s: %s", name, message)
        self._keys, self._authorities, self._contexts = keys, authorities, contexts
        self._errors = errors

    def _read(
        self, backends: Iterable[Backend]
    ) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, str]]:
        keys: dict[str, bytes] = {}
        authorities: dict[str, bytes] = {}
        errors: dict[str, str] = {}
        for backend in backends:
            try:
                if backend.has_ca:
                    authorities[backend.name] = self._file(backend, CA_FILE)
                if backend.has_key:
                    keys[backend.name] = self._key(backend)
            except BadSecret as error:
                errors[backend.name] = str(error)
            except OSError as error:
                errors[backend.name] = f"cannot read its Secrets yet: {describe(error)}"
        return keys, authorities, errors

    def _key(self, backend: Backend) -> bytes:
        key = self._file(backend, KEY_FILE).strip()
        if not _KEY.fullmatch(key):
            raise BadSecret(
                "the API key must be one line of up to 4096 printable characters without spaces"
            )
        hosts = hosts_in(self._file(backend, HOSTS_FILE).decode(errors="replace"))
        if backend.host not in hosts:
            raise BadSecret(
                f"its API key is not sent to {backend.host}: the entry `hosts` of the Secret does "
                "not contain this host"
            )
        return key

    def _file(self, backend: Backend, name: str) -> bytes:
        if self._root is None:
            raise FileNotFoundError("they are not mounted")
        with (self._root / backend.name / name).open("rb") as file:
            return file.read(_MAX_BYTES)


def _client_context(authorities: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authorities.decode() if authorities else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
