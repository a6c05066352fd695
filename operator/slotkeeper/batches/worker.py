"""Executes batches: checks their files, sends their requests, records the results."""

import asyncio
import logging
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from slotkeeper.backoff import Backoff
from slotkeeper.batches import results
from slotkeeper.batches.attempt import Attempt, attempt
from slotkeeper.batches.client import GatewayClient
from slotkeeper.batches.disk import Disk
from slotkeeper.batches.lines import BadLine, Index, LineError
from slotkeeper.batches.metrics import Metrics
from slotkeeper.batches.records import Batch, BatchStatus, is_done
from slotkeeper.batches.results import Result
from slotkeeper.batches.scheduler import PREEMPTED, THROTTLED, Job, Next, Scheduler
from slotkeeper.batches.store import StorageFull
from slotkeeper.batches.verdict import MAX_ATTEMPTS, Verdict
from slotkeeper.error_text import describe
from slotkeeper.wire.tasks import Tasks

_log = logging.getLogger(__name__)

MAX_LOADED = 32
"""Batches that are executed at the same time. The index of one occupies up to a megabyte."""
MAX_LOADED_OF_OWNER = 4
MAX_SENT_BYTES = 32 * 1024**2
"""Bytes of the requests in progress. A larger one is sent alone."""
MAX_UNWRITTEN_BYTES = 32 * 1024**2
"""Bytes of results that are not on the disk yet, from which on no further request is sent."""
_TICK_SECONDS = 1.0
_RETRY = Backoff(first=1, maximum=60)
_EXPIRED_CHUNK = 500
_INPUT_LOST = LineError("input_file_lost", "the input file has been changed or deleted")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the spec of the LlamaGateway sets."""

    concurrency: int
    max_line: int
    """Bytes of one line."""
    retention_seconds: int
    retry_seconds: float = 10.0
    """Between two tries to write results, for example to a full volume, and to read a file."""


class _Loaded:
    """A batch that is executed."""

    def __init__(self, batch: Batch, index: Index, descriptor: int) -> None:
        self.batch = batch
        self.index = index
        self.descriptor = descriptor
        """Of its input file."""
        self.attempts: dict[int, int] = {}
        """Failed attempts by line."""
        self.interruptions: dict[int, int] = {}
        """Streams that were closed, by line."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.ready: list[Result] = []
        """Results that are not written yet."""
        self.writing = asyncio.Lock()

    @property
    def has_all_results(self) -> bool:
        return self.batch.completed + self.batch.failed == self.batch.total


class Worker:
    """Executes all batches that have not ended.

    `secrets` returns the API keys by name; None: the gateway requires none. `wall` returns the time
    in seconds since 1970.
    """

    def __init__(
        self,
        disk: Disk,
        client: GatewayClient,
        secrets: Callable[[], Mapping[str, bytes] | None],
        settings: Settings,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._client = client
        self._secrets = secrets
        self._settings = settings
        self._metrics = metrics
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._scheduler = Scheduler(settings.concurrency)
        self._waiting: dict[str, Batch] = {}
        """Batches that have not ended and are not loaded, the oldest first."""
        self._loaded: dict[str, _Loaded] = {}
        self._loading: set[str] = set()
        self._sent_bytes = 0
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._tasks = Tasks()
        self._blocked_until = 0.0
        self._retry_at: dict[str, float] = {}
        self._last_load = defaultdict[str, float](float)  # times, by owner

    # Called by the API.

    def add(self, batch: Batch) -> None:
        """Execute a batch."""
        self._waiting[batch.id] = batch
        self._wake.set()

    async def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch, unless it has ended. Its results so far are kept."""

        def change(batch: Batch) -> Batch:
            if batch.status not in {"validating", "in_progress"}:
                return batch
            return self._with_status(batch, "cancelling")

        changed = await self._change(batch_id, change)
        self._wake.set()
        return changed

    # The process.

    async def run(self) -> None:
        """Execute batches. Never returns."""
        for batch in await self._disk.run(lambda store: store.unfinished()):
            self._waiting[batch.id] = batch
        writer = asyncio.create_task(self._write_results())
        try:
            while True:
                self._wake.clear()
                self._end_batches()
                self._load_batches()
                self._send_requests()
                resumes_at = self._scheduler.resumes_at(self._loop.time())
                delay = _TICK_SECONDS
                if resumes_at is not None:
                    delay = min(delay, max(0.01, resumes_at - self._loop.time()))
                try:
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
                except TimeoutError:
                    self._scheduler.forget_idle_windows()
        finally:
            running = [writer, *(task for each in self._loaded.values() for task in each.tasks)]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._tasks.join(cancel=True)
            for loaded in self._loaded.values():
                os.close(loaded.descriptor)
            self._loaded.clear()

    @property
    def running(self) -> int:
        """Requests in progress."""
        return self._scheduler.in_progress

    @property
    def blocked(self) -> bool:
        """Whether results cannot be written."""
        return self._loop.time() < self._blocked_until

    # Loading.

    def _load_batches(self) -> None:
        now = self._loop.time()
        counts = Counter(loaded.batch.owner for loaded in self._loaded.values())
        for batch in sorted(self._waiting.values(), key=lambda each: self._last_load[each.owner]):
            if self._loading or len(self._loaded) >= MAX_LOADED:
                return
            if self._retry_at.get(batch.id, 0.0) > now:
                continue
            ends = batch.status == "cancelling" or batch.expires_at <= self._wall()
            if ends or counts[batch.owner] < MAX_LOADED_OF_OWNER:
                # One at a time: an index is made from a whole file. So owners take turns.
                self._last_load[batch.owner] = now
                self._loading.add(batch.id)
                self._tasks.spawn(self._load(batch))

    async def _load(self, batch: Batch) -> None:
        try:
            await self._try_load(batch)
            self._retry_at.pop(batch.id, None)
        except (OSError, sqlite3.Error) as error:
            _log.warning("%s: %s", batch.id, describe(error))
            self._retry_at[batch.id] = self._loop.time() + self._settings.retry_seconds
        except Exception:
            _log.exception("cannot load %s", batch.id)
            self._retry_at[batch.id] = self._loop.time() + self._settings.retry_seconds
        finally:
            self._loading.discard(batch.id)
            self._wake.set()

    async def _try_load(self, batch: Batch) -> None:
        if batch.status == "cancelling" and not batch.total:
            await self._finish(batch.id, "cancelled")
            return
        models = None
        if batch.status == "validating":
            if batch.expires_at <= self._wall():
                await self._finish(batch.id, "expired")
                return
            models = await self._client.models(self._secret(batch.owner))
        path = self._disk.path(batch.input_file_id)
        try:
            index = await self._disk.scan(path, batch.endpoint, self._settings.max_line, models)
        except FileNotFoundError:
            await self._fail(batch.id, [_INPUT_LOST])
            return
        if batch.status == "validating" and index.errors:
            await self._fail(batch.id, index.errors)
            return
        if batch.status == "validating":
            batch = await self._change(batch.id, lambda each: self._begin(each, len(index)))
        if len(index) != batch.total:
            await self._fail(batch.id, [_INPUT_LOST])
            return
        loaded = _Loaded(batch, index, os.open(path, os.O_RDONLY))
        self._loaded[batch.id] = loaded
        self._waiting.pop(batch.id, None)
        pending = (
            (index.model(line), line) for line in range(len(index)) if not is_done(batch.done, line)
        )
        self._scheduler.add(Job(batch.id, batch.owner, pending))
        _log.info("%s: %d requests, %d done", batch.id, batch.total, batch.completed + batch.failed)

    def _begin(self, batch: Batch, total: int) -> Batch:
        batch = replace(batch, total=total)
        return batch if batch.status == "cancelling" else self._with_status(batch, "in_progress")

    async def _fail(self, batch_id: str, errors: list[LineError]) -> None:
        trees = [each.tree() for each in errors]
        await self._change(batch_id, lambda batch: replace(batch, errors=trees))
        await self._finish(batch_id, "failed")

    async def _change(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        """Change a batch on the disk, and here."""
        changed = await self._disk.run(lambda store: store.change(batch_id, change))
        self._replace(changed)
        return changed

    def _replace(self, batch: Batch) -> None:
        # Results of the disk arrive in the order of the changes.
        if loaded := self._loaded.get(batch.id):
            loaded.batch = batch
        elif batch.id in self._waiting:
            self._waiting[batch.id] = batch

    def _secret(self, owner: str) -> bytes | None:
        secrets = self._secrets()
        if secrets is None:
            return None
        if owner not in secrets:
            raise OSError(f"its API key {owner} does not exist any more; trying again")
        return secrets[owner]

    # Sending.

    def _send_requests(self) -> None:
        now = self._loop.time()
        # A request whose result is not written is sent again after a restart.
        unwritten = [each for loaded in self._loaded.values() for each in loaded.ready]
        if self.blocked or len(unwritten) >= self._settings.concurrency:
            return
        if sum(len(each.text) for each in unwritten) >= MAX_UNWRITTEN_BYTES:
            return
        while self._sent_bytes < MAX_SENT_BYTES:
            started = self._scheduler.start(now, self._able_owners())
            if started is None:
                return
            loaded = self._loaded[started.batch_id]
            self._sent_bytes += loaded.index.lengths[started.line]
            task = self._loop.create_task(self._execute(loaded, started))
            loaded.tasks.add(task)
            task.add_done_callback(loaded.tasks.discard)

    def _able_owners(self) -> set[str]:
        secrets = self._secrets()
        owners = {loaded.batch.owner for loaded in self._loaded.values()}
        return owners if secrets is None else owners & secrets.keys()

    async def _execute(self, loaded: _Loaded, started: Next) -> None:
        try:
            result = await self._attempt(loaded, started)
        except Exception:
            _log.exception("%s: line %d", started.batch_id, started.line + 1)
            result = None
            self._retry_later(loaded, started, loaded.interruptions)
        finally:
            self._scheduler.ended(started.model)
            self._sent_bytes -= loaded.index.lengths[started.line]
            self._wake.set()
        if result:
            loaded.ready.append(result)
            self._written.set()

    async def _attempt(self, loaded: _Loaded, started: Next) -> Result | None:
        """Send a request; return its result, None if it is sent again later."""
        batch = loaded.batch
        batch_id, _, number = started
        try:
            line = await self._disk.read_line(
                loaded.descriptor, loaded.index, number, batch.endpoint
            )
        except BadLine as error:
            return results.of_error(batch_id, number, "", error.code, str(error))
        found = await attempt(
            self._client, self._disk, batch.endpoint, line, self._secret(batch.owner)
        )
        self._metrics.attempt(found.verdict)
        if self._is_sent_again(loaded, started, found):
            return None
        if found.reply:
            return await self._disk.in_thread(
                results.of_reply, batch_id, number, line.custom_id, found.reply
            )
        return results.of_error(batch_id, number, line.custom_id, found.code, found.failure)

    def _is_sent_again(self, loaded: _Loaded, started: Next, found: Attempt) -> bool:
        _, model, number = started
        if found.verdict in {Verdict.PREEMPTED, Verdict.THROTTLED}:
            delays = PREEMPTED if found.verdict is Verdict.PREEMPTED else THROTTLED
            retry_after = found.reply and found.reply.retry_after
            self._scheduler.throttled(model, self._loop.time(), delays, retry_after)
            if found.interrupted:
                self._retry_later(loaded, started, loaded.interruptions)
            else:
                self._add_again(loaded, started)
            return True
        if found.verdict is Verdict.FAILED:
            if loaded.attempts.get(number, 0) + 1 < MAX_ATTEMPTS:
                self._retry_later(loaded, started, loaded.attempts)
                return True
        else:
            self._scheduler.succeeded(model)
        loaded.attempts.pop(number, None)
        loaded.interruptions.pop(number, None)
        return False

    def _retry_later(self, loaded: _Loaded, started: Next, counts: dict[int, int]) -> None:
        """Send a request again, the later, the more often that has been counted for its line."""
        count = counts[started.line] = counts.get(started.line, 0) + 1
        self._loop.call_later(_RETRY.delay(count), self._add_again, loaded, started)

    def _add_again(self, loaded: _Loaded, started: Next) -> None:
        job = self._scheduler.find(loaded.batch.owner, started.batch_id)
        if job:
            job.add(started.model, started.line)
            self._wake.set()

    # Results.

    async def _write_results(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            if self.blocked:
                continue
            for loaded in [each for each in self._loaded.values() if each.ready]:
                try:
                    await self._write(loaded)
                except (OSError, sqlite3.Error) as error:
                    _log.error("cannot write the results of batches: %s", describe(error))
                    self._metrics.write_failed()
                    self._block()
                    break
                except Exception:
                    _log.exception("cannot write the results of %s", loaded.batch.id)
                    self._block()
                    break
            self._wake.set()

    def _block(self) -> None:
        """Send and write nothing for a while: the volume does not accept it."""
        seconds = self._settings.retry_seconds
        self._blocked_until = self._loop.time() + seconds
        # A little later: the timer of a loop may be early by its resolution.
        self._loop.call_later(seconds + 0.01, self._written.set)

    async def _write(self, loaded: _Loaded) -> None:
        async with loaded.writing:
            ready = list(loaded.ready)
            output = b"".join(each.text for each in ready if not each.failed)
            errors = b"".join(each.text for each in ready if each.failed)
            failed = sum(each.failed for each in ready)
            numbers = [each.line for each in ready]
            batch_id = loaded.batch.id
            changed = await self._disk.run(
                lambda store: store.add_results(batch_id, numbers, output, errors, failed)
            )
            self._replace(changed)
            del loaded.ready[: len(ready)]
        self._metrics.results(len(ready) - failed, failed)

    # Ends.

    def _end_batches(self) -> None:
        now = self._wall()
        for loaded in list(self._loaded.values()):
            batch = loaded.batch
            if batch.id in self._loading or self._retry_at.get(batch.id, 0.0) > self._loop.time():
                continue
            # Also while no results can be written: the files of one that has ended can be deleted.
            if batch.status == "cancelling" or batch.expires_at <= now or loaded.has_all_results:
                self._loading.add(batch.id)
                self._tasks.spawn(self._end(loaded))

    async def _end(self, loaded: _Loaded) -> None:
        """End a batch: all its results are there, it was cancelled, or it has expired."""
        batch_id = loaded.batch.id
        self._retry_at[batch_id] = self._loop.time() + self._settings.retry_seconds
        self._scheduler.remove(loaded.batch.owner, batch_id)
        for task in list(loaded.tasks):
            task.cancel()
        await asyncio.gather(*loaded.tasks, return_exceptions=True)
        try:
            if loaded.ready:
                await self._write_last(loaded)
            status: BatchStatus = "completed"
            if not loaded.has_all_results:
                status = "cancelled" if loaded.batch.status == "cancelling" else "expired"
            if status == "expired":
                await self._write_expired(loaded)
            await self._finish(batch_id, status)
            del self._loaded[batch_id]
            self._retry_at.pop(batch_id, None)
            os.close(loaded.descriptor)
        except (OSError, sqlite3.Error) as error:
            _log.error("cannot end %s: %s", batch_id, describe(error))
            self._metrics.write_failed()
            self._block()
        except Exception:
            _log.exception("cannot end %s", batch_id)
            self._block()
        finally:
            self._loading.discard(batch_id)
            self._wake.set()

    async def _write_last(self, loaded: _Loaded) -> bool:
        """Write results, or drop them if there is no room: the batch must end. Return whether."""
        with suppress(StorageFull):
            await self._write(loaded)
            return True
        loaded.ready.clear()
        return False

    async def _write_expired(self, loaded: _Loaded) -> None:
        done = loaded.batch.done
        missing = [line for line in range(loaded.batch.total) if not is_done(done, line)]
        message = "the request was not executed before the batch expired"
        for start in range(0, len(missing), _EXPIRED_CHUNK):
            for number in missing[start : start + _EXPIRED_CHUNK]:
                custom_id = await self._custom_id(loaded, number)
                loaded.ready.append(
                    results.of_error(loaded.batch.id, number, custom_id, "batch_expired", message)
                )
            if not await self._write_last(loaded):
                return  # the lines without a result are counted nowhere

    async def _custom_id(self, loaded: _Loaded, number: int) -> str:
        endpoint = loaded.batch.endpoint
        with suppress(BadLine):
            line = await self._disk.read_line(loaded.descriptor, loaded.index, number, endpoint)
            return line.custom_id
        return ""

    async def _finish(self, batch_id: str, status: BatchStatus) -> None:
        now = int(self._wall())
        expires_at = now + self._settings.retention_seconds

        def change(batch: Batch) -> Batch:
            if status == "completed":
                batch = self._with_status(batch, "finalizing")
            return self._with_status(batch, status)

        ended = await self._disk.run(lambda store: store.finish(batch_id, change, now, expires_at))
        self._waiting.pop(batch_id, None)
        _log.info(
            "%s: %s, %d of %d requests completed, %d failed",
            batch_id,
            status,
            ended.completed,
            ended.total,
            ended.failed,
        )

    def _with_status(self, batch: Batch, status: BatchStatus) -> Batch:
        times = {**batch.times, f"{status}_at": int(self._wall())}
        return replace(batch, status=status, times=times)
