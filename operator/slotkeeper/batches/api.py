"""OpenAI's API of files and batches."""

import asyncio
import logging
import re
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from slotkeeper import bounded_json
from slotkeeper.batches.disk import Disk
from slotkeeper.batches.download import send_content
from slotkeeper.batches.records import ENDPOINTS, Batch, StoredFile
from slotkeeper.batches.store import StorageFull
from slotkeeper.batches.uploads import MAX_EXPIRY_SECONDS, MIN_EXPIRY_SECONDS, Upload
from slotkeeper.batches.worker import Worker
from slotkeeper.edge import access
from slotkeeper.edge.access_log import AccessLog, exchange_fields
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.error_text import describe
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, Response, json_response
from slotkeeper.wire.tasks import Tasks

_log = logging.getLogger(__name__)

MAX_FILES = 10_000
"""Files of one API key."""
MAX_BATCHES = 10_000
"""Batches of one API key that are listed."""
MAX_UNFINISHED = 100
"""Batches of one API key that have not ended."""
MAX_BODY = 64 * 1024
"""Bytes of a body that is no upload."""
MAX_UPLOADS = 32
"""Uploads in progress."""
_MAX_METADATA = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512
_LIST_LIMIT = 100
"""Batches in one page."""
_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")
_MAX_WINDOW_HOURS = 7 * 24

_FILES = re.compile(rb"/v1/files(?:/([^/]+)(/content)?)?")
_BATCHES = re.compile(rb"/v1/batches(?:/([^/]+)(/cancel)?)?")

Handler = Callable[[Exchange, str], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """What the spec of the LlamaGateway sets."""

    max_file_bytes: int
    retention_seconds: int


class Api:
    """Handles the requests that the gateway forwards.

    `keys`: the accepted API keys; None: none is required. `wall` returns the time in seconds since
    1970.
    """

    def __init__(
        self,
        disk: Disk,
        worker: Worker,
        keys: ApiKeys | None,
        limits: ApiLimits,
        log: AccessLog,
        wall: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._worker = worker
        self._keys = keys
        self._limits = limits
        self._log = log
        self._wall = wall
        self._tasks = Tasks()
        self._discards = Tasks()
        self._uploads = 0
        # An owner has no more than its maximum, whatever it sends at the same time.
        self._creating = asyncio.Lock()

    def handle(self, exchange: Exchange) -> None:
        """Respond to a request."""
        try:
            owner = self.owner(exchange.request)
            handler = self._route(exchange.request)
        except HttpError as error:
            self._reject(exchange, error, None)
            return
        self._tasks.spawn(self._run(exchange, handler, owner))

    def owner(self, request: Request) -> str:
        """Return the name of the request's API key. Raises HttpError with status 401."""
        return "" if self._keys is None else access.key_owner(self._keys, request)

    def log_incomplete(self, peer: str, error: HttpError, request: Request | None) -> None:
        """Log a request that was rejected before it was complete."""
        path = request.path.decode(errors="replace")[:200] if request else None
        self._log.add({"client": peer, "path": path, "status": error.status, "code": error.code})

    async def close(self) -> None:
        """End all requests."""
        await self._tasks.join(cancel=True)
        await self._discards.join()
        self._log.flush()

    def _route(self, request: Request) -> Handler:
        method = b"GET" if request.method == b"HEAD" else request.method
        path = request.path
        if match := _FILES.fullmatch(path):
            form, routes = (
                match.lastindex or 0,
                {
                    (b"GET", 0): self._list_files,
                    (b"POST", 0): self._upload,
                    (b"GET", 1): self._get_file,
                    (b"DELETE", 1): self._delete_file,
                    (b"GET", 2): self._get_content,
                },
            )
        elif match := _BATCHES.fullmatch(path):
            form, routes = (
                match.lastindex or 0,
                {
                    (b"GET", 0): self._list_batches,
                    (b"POST", 0): self._create_batch,
                    (b"GET", 1): self._get_batch,
                    (b"POST", 2): self._cancel_batch,
                },
            )
        else:
            raise HttpError(404, "not_found", "path not found")
        handler = routes.get((method, form))
        if handler is None:
            allowed = b", ".join(sorted(each for each, number in routes if number == form))
            raise HttpError(
                405,
                "method_not_allowed",
                f"method not allowed, expected {allowed.decode()}",
                headers=[(b"Allow", allowed)],
            )
        return handler

    async def _run(self, exchange: Exchange, handler: Handler, owner: str) -> None:
        task = asyncio.current_task()

        def on_disconnect() -> None:
            if task:
                task.cancel()

        exchange.on_disconnect = on_disconnect
        try:
            response = await handler(exchange, owner)
        except asyncio.CancelledError:
            self._record(exchange, owner, "client_disconnected")
            raise
        except HttpError as error:
            self._reject(exchange, error, owner)
            return
        except StorageFull as error:
            self._reject(exchange, HttpError(507, "insufficient_storage", str(error)), owner)
            return
        except (OSError, sqlite3.Error) as error:
            _log.error("cannot use the volume: %s", describe(error))
            message = "the storage of files and batches failed"
            self._reject(exchange, HttpError(500, "storage_failed", message), owner)
            return
        except Exception:
            _log.exception("handling a request failed")
            message = "internal error while handling the request"
            self._reject(exchange, HttpError(500, "internal_error", message), owner)
            return
        exchange.on_disconnect = None
        if response and exchange.is_open:
            exchange.respond(response)
        self._record(exchange, owner)

    def _reject(self, exchange: Exchange, error: HttpError, owner: str | None) -> None:
        exchange.on_disconnect = None
        if not exchange.is_open:
            return
        if exchange.status:
            exchange.abort(reset=True)
        else:
            exchange.respond_with_error(error)
        self._record(exchange, owner, error.code)

    def _record(self, exchange: Exchange, owner: str | None, code: str | None = None) -> None:
        self._log.add({**exchange_fields(exchange, owner), "code": code})

    # Files.

    async def _upload(self, exchange: Exchange, owner: str) -> Response:
        if self._uploads >= MAX_UPLOADS:
            raise HttpError(503, "too_many_uploads", "too many uploads: retry later", retry_after=5)
        if await self._disk.run(lambda store: store.count_files(owner)) >= MAX_FILES:
            raise HttpError(400, "too_many_files", f"more than {MAX_FILES} files: delete some")
        upload = Upload(
            self._disk,
            owner,
            max_bytes=self._limits.max_file_bytes,
            retention_seconds=self._limits.retention_seconds,
        )
        self._uploads += 1
        try:
            file = await upload.receive(exchange.request, self._now())
        finally:
            self._uploads -= 1
            # A task of its own: this one may be cancelled, and once more meanwhile.
            self._discards.spawn(upload.discard())
        return json_response(200, file.tree())

    async def _list_files(self, exchange: Exchange, owner: str) -> Response:
        query = _query(exchange.request)
        limit = _limit(query, MAX_FILES, MAX_FILES)
        order = query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise _invalid("order must be asc or desc")
        files = await self._disk.run(
            lambda store: store.files(
                owner,
                after=query.get("after"),
                limit=limit + 1,
                ascending=order == "asc",
                purpose=query.get("purpose"),
            )
        )
        return _page([each.tree() for each in files], limit)

    async def _get_file(self, exchange: Exchange, owner: str) -> Response:
        return json_response(200, (await self._file(exchange.request, owner)).tree())

    async def _get_content(self, exchange: Exchange, owner: str) -> None:
        file = await self._file(exchange.request, owner)
        await send_content(exchange, self._disk, file)

    async def _delete_file(self, exchange: Exchange, owner: str) -> Response:
        file_id = (await self._file(exchange.request, owner)).id
        # A batch that is created meanwhile must not lose its file.
        async with self._creating:
            if await self._disk.run(lambda store: store.is_in_use(file_id)):
                raise HttpError(
                    409,
                    "file_in_use",
                    "a batch that has not ended reads this file: cancel it, or wait for its end",
                )
            await self._disk.run(lambda store: store.delete_file(file_id))
        return json_response(200, {"id": file_id, "object": "file", "deleted": True})

    async def _file(self, request: Request, owner: str) -> StoredFile:
        match = _FILES.fullmatch(request.path)
        return await self._find_file(owner, match[1].decode(errors="replace") if match else "")

    async def _find_file(self, owner: str, file_id: str) -> StoredFile:
        file = await self._disk.run(lambda store: store.file(owner, file_id))
        if file is None or (file.expires_at is not None and file.expires_at <= self._now()):
            raise HttpError(404, "file_not_found", f"no file with the id {file_id[:100]!r}")
        return file

    # Batches.

    async def _create_batch(self, exchange: Exchange, owner: str) -> Response:
        async with self._creating:
            batch = await self._new_batch(exchange.request, owner)
            total, unfinished = await self._disk.run(lambda store: store.count_batches_of(owner))
            if unfinished >= MAX_UNFINISHED:
                raise HttpError(
                    429,
                    "too_many_batches",
                    f"{MAX_UNFINISHED} batches have not ended: retry when one has",
                    retry_after=60,
                )
            if total >= MAX_BATCHES:
                raise HttpError(
                    400,
                    "too_many_batches",
                    f"more than {MAX_BATCHES} batches: batches.retentionDays deletes them",
                )
            await self._disk.run(lambda store: store.add_batch(batch))
        self._worker.add(batch)
        return json_response(200, batch.tree())

    async def _new_batch(self, request: Request, owner: str) -> Batch:
        tree = _object(request)
        endpoint, file_id = tree.get("endpoint"), tree.get("input_file_id")
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise _invalid(f"endpoint must be one of {', '.join(sorted(ENDPOINTS))}")
        if not isinstance(file_id, str):
            raise _invalid("input_file_id must be the id of a file")
        file = await self._find_file(owner, file_id)
        if file.purpose != "batch":
            raise _invalid("the file of input_file_id must have the purpose batch")
        window = tree.get("completion_window")
        now = self._now()
        number = secrets.token_hex(12)
        return Batch(
            id=f"batch_{number}",
            owner=owner,
            endpoint=endpoint,
            input_file_id=file.id,
            completion_window=str(window),
            created_at=now,
            expires_at=now + _window_seconds(window),
            output_file_id=f"file-{secrets.token_hex(12)}",
            error_file_id=f"file-{secrets.token_hex(12)}",
            metadata=_metadata(tree.get("metadata")),
            output_seconds=_output_seconds(tree.get("output_expires_after")),
        )

    async def _list_batches(self, exchange: Exchange, owner: str) -> Response:
        query = _query(exchange.request)
        limit = _limit(query, 20, _LIST_LIMIT)
        batches = await self._disk.run(
            lambda store: store.batches(owner, after=query.get("after"), limit=limit + 1)
        )
        return _page([each.tree() for each in batches], limit)

    async def _get_batch(self, exchange: Exchange, owner: str) -> Response:
        return json_response(200, (await self._batch(exchange.request, owner)).tree())

    async def _cancel_batch(self, exchange: Exchange, owner: str) -> Response:
        batch = await self._batch(exchange.request, owner)
        changed = await self._worker.cancel(batch.id)
        if changed.status not in {"cancelling", "cancelled"}:
            raise HttpError(
                409, "batch_has_ended", f"the batch cannot be cancelled: it is {changed.status}"
            )
        return json_response(200, changed.tree())

    async def _batch(self, request: Request, owner: str) -> Batch:
        match = _BATCHES.fullmatch(request.path)
        batch_id = match[1].decode(errors="replace") if match else ""
        batch = await self._disk.run(lambda store: store.batch(owner, batch_id))
        if batch is None:
            raise HttpError(404, "batch_not_found", f"no batch with the id {batch_id[:100]!r}")
        return batch

    def _now(self) -> int:
        return int(self._wall())


def _query(request: Request) -> dict[str, str]:
    text = request.target.partition(b"?")[2].decode(errors="replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise _invalid("invalid query") from None


def _limit(query: dict[str, str], default: int, maximum: int) -> int:
    text = query.get("limit", str(default))
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 9 else 0
    if not 1 <= number <= maximum:
        raise _invalid(f"limit must be a whole number from 1 to {maximum}")
    return number


def _page(trees: list[dict[str, Any]], limit: int) -> Response:
    data = trees[:limit]
    page = {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(trees) > limit,
    }
    return json_response(200, page)


def _object(request: Request) -> dict[str, Any]:
    try:
        tree = bounded_json.parse(request.body, max_bytes=MAX_BODY, max_depth=8)
    except ValueError as error:
        raise _invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise _invalid("the body must be a JSON object")
    return tree


def _window_seconds(value: object) -> int:
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    hours = int(match[1]) * (24 if match[2] == "d" else 1) if match else 0
    if not 1 <= hours <= _MAX_WINDOW_HOURS:
        raise _invalid("completion_window must be 24h, or another time from 1h to 7d")
    return hours * 3600


def _metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if (
        not isinstance(value, dict)
        or len(value) > _MAX_METADATA
        or not all(
            isinstance(text, str)
            and len(key) <= _MAX_METADATA_KEY
            and len(text) <= _MAX_METADATA_VALUE
            for key, text in value.items()
        )
    ):
        raise _invalid(
            f"metadata must be an object of up to {_MAX_METADATA} strings of up to "
            f"{_MAX_METADATA_VALUE} characters, with names of up to {_MAX_METADATA_KEY}"
        )
    return dict(value)


def _output_seconds(value: object) -> int | None:
    if value is None:
        return None
    seconds = value.get("seconds") if isinstance(value, dict) else None
    if (
        not isinstance(value, dict)
        or value.get("anchor") != "created_at"
        or type(seconds) is not int
        or not MIN_EXPIRY_SECONDS <= seconds <= MAX_EXPIRY_SECONDS
    ):
        raise _invalid(
            "output_expires_after must have anchor created_at, and seconds from "
            f"{MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}"
        )
    return seconds


def _invalid(message: str) -> HttpError:
    return HttpError(400, "invalid_request", message)
