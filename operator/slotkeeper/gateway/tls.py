"""TLS for clients, with a certificate that is replaced without a restart."""

import asyncio
import logging
import ssl
from pathlib import Path

from slotkeeper.error_text import describe

_log = logging.getLogger(__name__)

_CHECK_SECONDS = 10.0


class TlsFolder:
    """Keeps `context` equal to the files tls.crt and tls.key in a folder.

    Kubernetes mounts a Secret in this way, and updates the files within about a minute.
    """

    def __init__(self, path: Path) -> None:
        self.context = _server_context()
        self._certificate = path / "tls.crt"
        self._key = path / "tls.key"
        self._loaded: tuple[bytes, bytes] | None = None
        self._last_error = ""

    def load(self) -> None:
        """Read the files for the first time. Raises OSError with a message for users."""
        try:
            self._apply()
        except (OSError, ssl.SSLError) as error:
            raise OSError(self._message(error)) from error

    async def watch(self) -> None:
        """Check for changes every ten seconds. Never returns. If a check fails, nothing changes."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Check for changes once."""
        try:
            await asyncio.to_thread(self._apply)
        except (OSError, ssl.SSLError) as error:
            message = self._message(error)
            if message != self._last_error:
                _log.warning("%s; keeping the last certificate", message)
            self._last_error = message
        else:
            self._last_error = ""

    def _apply(self) -> None:
        files = self._certificate.read_bytes(), self._key.read_bytes()
        if files == self._loaded:
            return
        # On a context of its own first: a certificate without its key must not replace the last.
        _server_context().load_cert_chain(self._certificate, self._key)
        self.context.load_cert_chain(self._certificate, self._key)
        self._loaded = files
        _log.info("TLS certificate loaded")

    def _message(self, error: Exception) -> str:
        return f"cannot read the TLS certificate {self._certificate} and its key: {describe(error)}"


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
