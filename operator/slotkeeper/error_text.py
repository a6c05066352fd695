"""Errors of the operating system and the network as plain text, for messages to users."""

import os
import re

_NUMBER = re.compile(r"\[Errno -?\d+\] ")
_CONNECT = re.compile(r"Connect call failed \(.*\)")
"""asyncio's text for any failure to connect."""


def describe(error: BaseException) -> str:
    """Return what went wrong, such as `Connection refused`, without the number of the error."""
    # aiohttp's failures to connect.
    if isinstance(cause := getattr(error, "os_error", None), OSError):
        host, port = getattr(error, "host", ""), getattr(error, "port", "")
        return f"cannot connect to {host}:{port}: {describe(cause)}"
    text = str(error)
    if isinstance(error, OSError) and isinstance(error.strerror, str):
        text = error.strerror
        if error.errno and _CONNECT.fullmatch(text):
            text = os.strerror(error.errno)
    if isinstance(error, TimeoutError):
        text = text or "timed out"
    return _NUMBER.sub("", text) or type(error).__name__
