"""Client of a replica's prompt-files agent, which owns the folder that llama-server writes to."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from slotkeeper.bounded_json import parse
from slotkeeper.scheduling.prompt_files import PromptFile
from slotkeeper.wire.http_get import request

NO_ROOM = 507
INVALID_FILE = 409
NOT_FOUND = 404

_MAX_LISTING = 4 * 2**20
"""Bytes of a list of files. One of 4,096 files has 1.5 MB."""
_SMALL_LISTING = 64 * 1024
_MAX_BYTES = 1024 * 1024
"""Of another response, which may name all files that were removed."""
_MAX_FILES = 4096
_MAX_PREFIXES = 16
_MAX_COUNT = 2**62
_MAX_TEXT = 64
_DIGITS = frozenset("0123456789abcdef")


class AgentError(OSError):
    """The agent did not do what was requested. `status`: of its response, 0 if it is no response
    of an agent."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Listing:
    """The prompt files in a folder that were written by the same model and flags."""

    identity: str
    """Of the model and of llama-server's flags."""
    files: tuple[PromptFile, ...]
    """The one that was used last is first."""


class Agent:
    """The agent of one replica. Each method raises OSError, also for a malformed response."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._host = host
        self._port = port
        self._seconds = seconds

    async def files(self) -> Listing:
        """Return the files."""
        body = await self._request("GET", "/files", max_bytes=_MAX_LISTING)
        try:
            # Thousands of files take long enough to delay streams.
            small = len(body) <= _SMALL_LISTING
            return parse_listing(body) if small else await asyncio.to_thread(parse_listing, body)
        except ValueError as error:
            raise AgentError(0, f"malformed list of files: {error}") from None

    async def make_room(self, size: int) -> list[str]:
        """Make room for a file, and return the names of those that were removed for it.

        Raises AgentError with status NO_ROOM if there is none.
        """
        tree = await self._post("/room", {"bytes": size})
        if tree.get("ok") is not True:
            raise AgentError(NO_ROOM, f"no room for a prompt file: {tree.get('reason')}")
        return _removed(tree)

    async def commit(self, temporary: str, file: PromptFile, *, once: bool) -> list[str]:
        """Check what llama-server has written to `temporary`, and keep it as `file`.

        `once`: its prompt was sent only once, so that it does not push out others.
        Returns the names of files that were removed for it.
        """
        tree = await self._post(
            "/commit",
            {
                "temporary": temporary,
                "name": file.name,
                "bytes": file.bytes,
                "tokens": file.tokens,
                "prefixes": list(file.prefixes),
                "compatible": file.compatible,
                "once": once,
            },
        )
        return _removed(tree)

    async def use(self, name: str) -> None:
        """Check a file and read it into the page cache. Raises AgentError 404 if it is gone."""
        await self._post("/use", {"name": name})

    async def delete(self, name: str) -> None:
        """Delete a file."""
        await self._request("DELETE", f"/files/{name}")

    async def done(self) -> None:
        """Report that nothing more will be saved of this replica."""
        await self._request("POST", "/done", b"{}")

    async def _post(self, path: str, tree: dict[str, object]) -> dict[str, Any]:
        body = await self._request("POST", path, json.dumps(tree).encode())
        try:
            response = parse(body, max_bytes=_MAX_BYTES)
        except ValueError as error:
            raise AgentError(0, f"malformed response of {path}: {error}") from None
        return response if isinstance(response, dict) else {}

    async def _request(
        self, method: str, path: str, body: bytes = b"", *, max_bytes: int = _MAX_BYTES
    ) -> bytes:
        status, response = await request(
            method,
            self._host,
            self._port,
            path,
            seconds=self._seconds,
            max_bytes=max_bytes,
            body=body,
        )
        if not 200 <= status < 300:
            raise AgentError(status, f"{path} returned {status}")
        return response


def _removed(tree: Mapping[str, Any]) -> list[str]:
    removed = tree.get("removed")
    names = removed if isinstance(removed, list) else []
    return [name for name in names if isinstance(name, str)]


def parse_listing(body: bytes) -> Listing:
    """Parse a list of files. Entries that are malformed are left out. Raises ValueError."""
    tree = parse(body, max_bytes=_MAX_LISTING)
    identity = tree.get("identity") if isinstance(tree, dict) else None
    if not _is_hex(identity):
        raise ValueError("no identity")
    listed = tree.get("files")
    files = listed[:_MAX_FILES] if isinstance(listed, list) else []
    return Listing(identity, tuple(file for each in files if (file := _file(each))))


def _file(item: object) -> PromptFile | None:
    if not isinstance(item, dict):
        return None
    name, compatible, prefixes = (item.get(key) for key in ("name", "compatible", "prefixes"))
    if not (_is_hex(name) and _is_hex(compatible) and isinstance(prefixes, list)):
        return None
    counts = [item.get("bytes"), item.get("tokens"), *prefixes]
    if len(prefixes) > _MAX_PREFIXES or not all(
        type(count) is int and 0 <= count <= _MAX_COUNT for count in counts
    ):
        return None
    return PromptFile(name, counts[0], counts[1], tuple(prefixes), compatible)


def _is_hex(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and _DIGITS.issuperset(value)
