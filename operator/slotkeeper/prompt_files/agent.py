"""The HTTP interface of the agent, for the balancers, and for the preStop hook of llama-server.

| request            | body                                                 | response            |
|--------------------|------------------------------------------------------|---------------------|
| GET /files         |                                                      | files, limit        |
| POST /room         | bytes                                                | ok, removed, reason |
| POST /commit       | temporary, name, bytes, tokens, prefixes, compatible | removed             |
| POST /use          | name                                                 | bytes, seconds      |
| DELETE /files/NAME |                                                      | removed             |
| POST /done         |                                                      | done                |
| GET /wait-done     | query: seconds                                       | done                |
| GET /metrics       |                                                      |                     |

`once` may be in the body of /commit: true if the prompt was sent only once.

`removed` are the names of files that were removed for it; of DELETE, whether the file was there.

Errors: 400 for a malformed request, 404, 405, 409 for a file that is not what was announced (it is
deleted), 500 and 507 for errors of the disk, 503 if it is too slow.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs

from slotkeeper.bounded_json import parse
from slotkeeper.edge.long_poll import LongPoll
from slotkeeper.error_text import describe
from slotkeeper.prompt_files.folder import Folder, InvalidFileError, Listing
from slotkeeper.prompt_files.metrics import Metrics
from slotkeeper.prompt_files.names import NAME, PART_NAME
from slotkeeper.prompt_files.policy import Reason
from slotkeeper.prompt_files.record import MAX_FILE_BYTES, Content, is_integer
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.limits import MIB, Limits
from slotkeeper.wire.message import PROMETHEUS, Request, Response, json_response
from slotkeeper.wire.tasks import Tasks

MAX_BODY = 16 * 1024

MAX_WAIT_SECONDS = 60.0
"""Of one GET /wait-done. A longer time is reduced to this."""

MAX_PENDING = 32
"""Requests that wait for the disk. There is one balancer that sends any, or for a moment two."""

CHANGES, READS = 2, 2
"""Threads. A slow reading must not delay a change, nor the flushing of a large file a listing."""

_FILES = b"/files"
_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")

_log = logging.getLogger(__name__)


def http_limits() -> Limits:
    """Return the limits of the agent's address."""
    return Limits(
        max_body=MAX_BODY,
        max_buffered=32 * MIB,
        max_connections=128,
        max_connections_per_address=64,
    )


class Agent:
    """Handles the requests. Create it in a running event loop.

    `monotonic` returns seconds, `time_ns` the Unix time in nanoseconds.
    """

    def __init__(
        self,
        folder: Folder,
        metrics: Metrics,
        monotonic: Callable[[], float],
        time_ns: Callable[[], int],
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._monotonic = monotonic
        self._time_ns = time_ns
        self._done = False
        self._long_poll = LongPoll(self._done_response, MAX_WAIT_SECONDS)
        self._tasks = Tasks()
        self._changes = ThreadPoolExecutor(CHANGES, "changes")
        self._reads = ThreadPoolExecutor(READS, "reads")
        self._routes: dict[tuple[bytes, bytes], _Handler] = {
            (b"GET", _FILES): self._list,
            (b"POST", b"/room"): self._make_room,
            (b"POST", b"/commit"): self._commit,
            (b"POST", b"/use"): self._use,
        }

    def handle(self, exchange: Exchange) -> None:
        """Respond to a complete request."""
        request = exchange.request
        route = request.method, request.path
        try:
            if route == (b"GET", b"/wait-done"):
                self._wait_done(exchange)
            elif route == (b"POST", b"/done"):
                self._done = True
                self._long_poll.release_all()
                exchange.respond(self._done_response())
            elif route == (b"GET", b"/metrics"):
                exchange.respond(Response(200, self._metrics.text(), PROMETHEUS))
            else:
                self._start(exchange, self._handler(request))
        except HttpError as error:
            exchange.respond_with_error(error)

    async def sweep(self) -> None:
        """Remove what is left over, expired, or beyond the limits. Raises OSError."""
        now_ns = self._time_ns()
        removals = await self._in_thread(self._changes, self._folder.sweep, now_ns)
        self._metrics.count_removals(removals)
        self._metrics.set_listing(await self._in_thread(self._changes, self._folder.list))

    async def close(self) -> None:
        """Wait for what is in progress."""
        await self._tasks.join()
        self._changes.shutdown()
        self._reads.shutdown()

    def _handler(self, request: Request) -> "_Handler":
        handler = self._routes.get((request.method, request.path))
        if handler is not None:
            return handler
        folder, _, name = request.path.decode("latin-1").rpartition("/")
        if folder == _FILES.decode() and NAME.fullmatch(name):
            if request.method != b"DELETE":
                raise _not_allowed(b"DELETE")
            return self._remove
        allowed = [method for method, path in self._routes if path == request.path]
        if allowed:
            raise _not_allowed(allowed[0])
        raise _not_found("no such path")

    def _start(self, exchange: Exchange, handler: "_Handler") -> None:
        if len(self._tasks) >= MAX_PENDING:
            raise HttpError(503, "busy", "too many requests wait for the disk", retry_after=1)
        self._tasks.spawn(self._respond(exchange, handler))

    async def _respond(self, exchange: Exchange, handler: "_Handler") -> None:
        try:
            response = await handler(exchange)
        except HttpError as error:
            response = error.response()
        except InvalidFileError as error:
            self._metrics.count_removed(Reason.INVALID)
            _log.warning("a file was rejected: %s", error)
            response = HttpError(409, "invalid_file", str(error)).response()
        except OSError as error:
            self._metrics.count_error()
            _log.warning("%s: %s", exchange.request.path.decode("latin-1"), describe(error))
            response = _disk_error(error).response()
        except Exception:
            _log.exception("a request failed")
            response = HttpError(500, "internal_error", "see the log of the agent").response()
        if exchange.is_open:
            exchange.respond(response)

    async def _list(self, _: Exchange) -> Response:
        listing = await self._in_thread(self._changes, self._folder.list)
        self._metrics.set_listing(listing)
        tree = self._listing_tree(listing)
        return json_response(200, tree)

    def _listing_tree(self, listing: Listing) -> Mapping[str, object]:
        files = [
            {
                "name": file.name,
                "bytes": file.record.content.bytes,
                "tokens": file.record.content.tokens,
                "prefixes": file.record.content.prefixes,
                "compatible": file.record.content.compatible,
                "savedAt": file.record.saved_at,
                "usedAt": file.used_ns // 10**9,
            }
            for file in listing.files
        ]
        return {
            "identity": self._folder.identity,
            "limitBytes": self._folder.limits.max_bytes,
            "usedBytes": listing.used_bytes,
            "freeBytes": listing.free_bytes,
            "files": files,
        }

    async def _make_room(self, exchange: Exchange) -> Response:
        size = _body(exchange.request).get("bytes")
        if not isinstance(size, int) or not is_integer(size, 1, MAX_FILE_BYTES):
            raise _invalid("bytes must be a whole number, 1 or more")
        now_ns = self._time_ns()
        room = await self._in_thread(self._changes, self._folder.make_room, size, now_ns)
        self._metrics.count_removals(room.removals)
        tree = {"ok": room.lacking is None, "removed": room.removals.names}
        return json_response(200, tree | ({"reason": room.lacking} if room.lacking else {}))

    async def _commit(self, exchange: Exchange) -> Response:
        tree = _body(exchange.request)
        name, part, content = tree.get("name"), tree.get("temporary"), Content.from_tree(tree)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise _invalid("name must have 32 hexadecimal digits")
        if not isinstance(part, str) or not PART_NAME.fullmatch(part):
            raise _invalid("temporary must be 32 hexadecimal digits and .part")
        if content is None:
            raise _invalid("bytes, tokens, prefixes or compatible are missing or invalid")
        commit = partial(self._folder.commit, once=tree.get("once") is True)
        removals = await self._in_thread(
            self._changes, commit, part, name, content, self._time_ns()
        )
        self._metrics.count_removals(removals)
        return json_response(200, {"removed": removals.names})

    async def _use(self, exchange: Exchange) -> Response:
        name = _body(exchange.request).get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise _invalid("name must have 32 hexadecimal digits")
        begin = self._monotonic()
        try:
            size = await self._in_thread(
                self._reads,
                self._folder.use,
                name,
                self._time_ns(),
                lambda: not exchange.is_open,
            )
        except FileNotFoundError as error:
            raise _not_found(describe(error)) from None
        seconds = round(self._monotonic() - begin, 6)
        return json_response(200, {"bytes": size, "seconds": seconds})

    async def _remove(self, exchange: Exchange) -> Response:
        name = exchange.request.path.decode("latin-1").rpartition("/")[2]
        removed = await self._in_thread(self._changes, self._folder.remove, name)
        if removed:
            self._metrics.count_removed(Reason.REQUESTED)
        return json_response(200, {"removed": removed})

    def _wait_done(self, exchange: Exchange) -> None:
        query = parse_qs(exchange.request.target.partition(b"?")[2].decode("latin-1"))
        try:
            seconds = float(query.get("seconds", ["0"])[0])
        except ValueError:
            seconds = -1.0
        if not seconds >= 0:
            raise _invalid("seconds must be a number, 0 or more")
        if self._done or not seconds:
            exchange.respond(self._done_response())
        else:
            self._long_poll.hold(exchange, seconds)

    def _done_response(self) -> Response:
        return json_response(200, {"done": self._done})

    @staticmethod
    async def _in_thread(pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


_Handler = Callable[[Exchange], Coroutine[Any, Any, Response]]


def _body(request: Request) -> Mapping[str, Any]:
    try:
        tree = parse(request.body, max_bytes=MAX_BODY, max_depth=2)
    except ValueError as error:
        raise _invalid(f"the body is not JSON within bounds: {error}") from None
    if not isinstance(tree, dict):
        raise _invalid("the body must be a JSON object")
    return tree


def _invalid(message: str) -> HttpError:
    return HttpError(400, "invalid_request", message)


def _not_found(message: str) -> HttpError:
    return HttpError(404, "not_found", message)


def _not_allowed(method: bytes) -> HttpError:
    message = f"only {method.decode()} is allowed"
    return HttpError(405, "method_not_allowed", message, headers=[(b"Allow", method)])


def _disk_error(error: OSError) -> HttpError:
    if isinstance(error, TimeoutError):
        return HttpError(503, "busy", describe(error), retry_after=1)
    if error.errno in _OUT_OF_SPACE:
        return HttpError(507, "disk_full", describe(error))
    return HttpError(500, "disk_error", describe(error))
