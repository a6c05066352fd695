"""One upload: a form, written to the volume as it arrives."""

import asyncio
import logging
import secrets
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import BinaryIO

from slotkeeper.batches.disk import Disk
from slotkeeper.batches.multipart import BadForm, FormParser, Part, PartEnd, boundary_of
from slotkeeper.batches.records import StoredFile
from slotkeeper.batches.store import Store
from slotkeeper.error_text import describe
from slotkeeper.wire.body_stream import BodyStream
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

_log = logging.getLogger(__name__)

MAX_FIELD = 1024
"""Bytes of a field that is not the file."""
MIN_EXPIRY_SECONDS = 3600
MAX_EXPIRY_SECONDS = 2_592_000
"""As in OpenAI's API."""
_BUFFER = 1024 * 1024
"""Bytes that are written at once. The client is paused while more than that is waiting."""
_MAX_FILENAME = 255
_FORM_OVERHEAD = 64 * 1024


class Body:
    """Pieces of a request's body, waited for."""

    def __init__(self, request: Request) -> None:
        self._stream: BodyStream | None = request.stream
        self._pieces = list(request.parts)
        self._size = 0
        self._ended = request.stream is None
        self._changed = asyncio.Event()
        if self._stream:
            self._stream.start(self)

    def on_request_body(self, data: bytes) -> None:
        """Keep a piece, and pause the client if there are many."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _BUFFER and self._stream:
            self._stream.pause(True)
        self._changed.set()

    def on_request_end(self) -> None:
        """End the pieces."""
        self._ended = True
        self._changed.set()

    async def read(self) -> bytes:
        """Return what has arrived since, at least one byte; empty at the end."""
        while not self._pieces and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._pieces)
        self._pieces = []
        self._size = 0
        if self._stream:
            self._stream.pause(False)
        return data


class Upload:
    """Reads a form with a file. `max_bytes`: of the file; `retention_seconds`: until it expires."""

    def __init__(self, disk: Disk, owner: str, *, max_bytes: int, retention_seconds: int) -> None:
        self._disk = disk
        self._max_bytes = max_bytes
        self._retention_seconds = retention_seconds
        self._fields: dict[str, bytes] = {}
        self._opening: asyncio.Task[BinaryIO] | None = None
        self._content: BinaryIO | None = None
        self._part: Part | None = None
        self._pending: list[bytes] = []
        self._file = StoredFile(f"file-{secrets.token_hex(12)}", owner, "", "batch", 0, 0)
        self._has_file = False
        self._reserved = 0

    async def receive(self, request: Request, now: int) -> StoredFile:
        """Return the file, once it is on the disk. Call `discard` afterwards, whatever happens.

        Raises HttpError, OSError or sqlite3.Error.
        """
        size = request.stream.size if request.stream else request.size
        if size > self._max_bytes + _FORM_OVERHEAD:
            raise self._too_large()

        def reserve(store: Store) -> None:
            store.reserve(size)
            self._reserved = size

        await self._disk.run(reserve)
        try:
            return await self._receive(request, now)
        except BadForm as error:
            raise HttpError(400, "invalid_form", str(error)) from None

    async def _receive(self, request: Request, now: int) -> StoredFile:
        parser = FormParser(boundary_of(request.header(b"content-type") or b""))
        body = Body(request)
        while data := await body.read():
            for event in parser.feed(data):
                if isinstance(event, bytes):
                    self._on_data(event)
                elif isinstance(event, PartEnd):
                    self._part = None
                else:
                    await self._on_part(event)
            await self._flush()
        if not parser.complete:
            raise BadForm("the form is incomplete: its last boundary is missing")
        if self._content is None:
            raise BadForm("the form has no part with the name file and a filename")
        purpose = self._fields.get("purpose", b"").decode(errors="replace")
        if purpose != "batch":
            raise HttpError(400, "invalid_purpose", "purpose must be batch")
        expires_at = now + self._lifetime()
        file = replace(self._file, created_at=now, expires_at=expires_at)
        content = self._content
        await self._disk.run(lambda store: store.complete_content(content, file))
        self._opening = None
        return file

    async def _on_part(self, part: Part) -> None:
        self._part = part
        if part.filename is None:
            self._fields.setdefault(part.name, b"")
        elif part.name != "file" or self._has_file:
            raise BadForm("expected one file, in a part with the name file")
        else:
            self._has_file = True
            self._file = replace(self._file, filename=_filename(part.filename))
            file_id = self._file.id
            creating = self._disk.run(lambda store: store.create_content(file_id))
            # Not cancelled with this: it would then be open, and nothing would close it.
            self._opening = asyncio.ensure_future(creating)
            self._content = await asyncio.shield(self._opening)

    def _on_data(self, data: bytes) -> None:
        part = self._part
        if part is None:
            return
        if part.filename is not None:
            self._file = replace(self._file, bytes=self._file.bytes + len(data))
            if self._file.bytes > self._max_bytes:
                raise self._too_large()
            self._pending.append(data)
            return
        value = self._fields[part.name] + data
        if len(value) > MAX_FIELD:
            raise BadForm(f"the field {part.name[:100]!r} is longer than {MAX_FIELD} bytes")
        self._fields[part.name] = value

    async def _flush(self) -> None:
        if not self._pending or self._content is None:
            return
        data, content = b"".join(self._pending), self._content
        self._pending = []
        await self._disk.run(lambda store: store.check_volume(len(data)))
        await self._disk.in_thread(content.write, data)

    async def discard(self) -> None:
        """Delete the content of a file that was not completed."""

        def release(store: Store) -> None:
            store.release(self._reserved)

        # After the reservation, also if that was cancelled.
        await self._disk.run(release)
        if self._opening is None:
            return
        file_id = self._file.id
        try:
            content = await self._opening
            await self._disk.in_thread(content.close)
            await self._disk.run(lambda store: store.discard_content(file_id))
        except OSError as error:
            # The next start deletes it.
            _log.warning("cannot delete an incomplete upload: %s", describe(error))

    def _lifetime(self) -> int:
        anchor = self._fields.get("expires_after[anchor]")
        seconds = self._fields.get("expires_after[seconds]")
        if anchor is None and seconds is None:
            return self._retention_seconds
        text = (seconds or b"").decode("ascii", "replace")
        number = int(text) if text.isdecimal() and len(text) < 9 else 0
        if anchor != b"created_at" or not MIN_EXPIRY_SECONDS <= number <= MAX_EXPIRY_SECONDS:
            raise HttpError(
                400,
                "invalid_expiry",
                "expires_after must have anchor=created_at and seconds from "
                f"{MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}",
            )
        return min(number, self._retention_seconds)

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            "file_too_large",
            f"the file is larger than {self._max_bytes} bytes (batches.maxFileBytes)",
        )


def _filename(sent: str) -> str:
    """Return a file's name for people. It is never a path here, but may become one at a client."""
    name = PureWindowsPath(PurePosixPath(sent).name).name
    name = "".join(each for each in name if each.isprintable())[:_MAX_FILENAME]
    return name if name.strip(". ") else "file"
