"""The prompt files of one replica: what its slots hold is saved, and restored."""

import asyncio
import hashlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

from slotkeeper.balancer.prompt_metrics import Place, RestoreFailure, SaveFailure
from slotkeeper.balancer.prompts.agent import INVALID_FILE, NO_ROOM, NOT_FOUND, Agent, AgentError
from slotkeeper.balancer.prompts.context import CompletedPrompt, PromptContext, Restored
from slotkeeper.balancer.prompts.slot_actions import ActionFailedError, SlotActions
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.slot_files import SlotFile
from slotkeeper.llamacpp.slots import Slot
from slotkeeper.scheduling.prompt_files import PromptFile, RestorePlan, Unusable
from slotkeeper.scheduling.prompt_saves import (
    Completed,
    SaveReason,
    SlotContent,
    WriteBudget,
    find_slots,
    next_save,
    slot_to_restore_into,
    worth_saving,
)

_log = logging.getLogger(__name__)

_TEMPORARY = ".part"
_ADDED_AT_ONCE = 256
"""Files of a listing that are added to the index in one iteration of the event loop."""
_MAX_PENDING = 64
"""Completed requests whose slot is searched in one read of /slots."""
_DEFAULT_BYTES_PER_TOKEN = 16 * 1024
"""Of the first file, whose size is not known before. That of a small model: if there were no room
for more, the size would never be known."""


class PromptReplica:
    """Runs until its replica has ended. `describe` returns what the replica's files must match."""

    def __init__(
        self,
        name: str,
        context: PromptContext,
        agent: Agent,
        actions: SlotActions,
        describe: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self.name = name
        self.compatible: str | None = None
        """What its files must match; None before it is known."""
        self.sizes: dict[str, int] = {}
        """Of all files in its folder, also of those that it cannot use."""
        self.problem = ""
        """Why it has no files, if the agent or llama-server does not respond as expected."""
        self.contents: dict[int, SlotContent] = {}
        """What its slots hold."""
        self.finished = False
        """Nothing more will be saved."""
        self._context = context
        self._agent = agent
        self._actions = actions
        self._describe = describe
        self._pending: deque[Completed] = deque(maxlen=_MAX_PENDING)
        self._discarded: list[str] = []
        self._budget = WriteBudget(context.now())
        self._acting = asyncio.Lock()
        """Held while a slot is saved or restored: one at a time."""
        self._first_listing = asyncio.Event()
        """The files have been read, or that has failed."""
        self._ending = asyncio.Event()
        self._wake = asyncio.Event()
        self._listed_at = context.now()
        self._paused_until = context.now()
        self._tasks: dict[int, int] = {}

    # The proxy's side. Nothing here waits.

    def end(self) -> None:
        """Save what is worth it, as soon as the replica's requests have ended."""
        self._ending.set()
        self._wake.set()

    @property
    def ending(self) -> bool:
        """Whether the replica is being deleted."""
        return self._ending.is_set()

    def list_again(self) -> None:
        """Read the files soon: another replica has written some."""
        self._listed_at = -math.inf
        self._wake.set()

    def added(self, file: PromptFile) -> None:
        """Record a file that another replica has written to the same folder."""
        self.sizes[file.name] = file.bytes
        self._context.index.add(self.name, file)

    def discard(self, file: PromptFile) -> None:
        """Delete a file soon."""
        self._context.index.discard(self.name, file.name)
        self._discarded.append(file.name)
        self._wake.set()

    def completed(self, prompt: CompletedPrompt) -> None:
        """Record a completed request, whose slot is worth a file."""
        if self._is_unusable:
            return
        self._pending.append(
            Completed(
                prompt.prefixes,
                prompt.computed,
                prompt.cached,
                prompt.generated,
                at=self._context.now(),
                restored=prompt.restored is not None,
            )
        )
        self._wake.set()

    @property
    def is_joining(self) -> bool:
        """Whether its files are read for the first time, so that none of them is known yet."""
        return not self._first_listing.is_set()

    async def joined(self) -> None:
        """Wait until the files have been read for the first time, for a moment at most."""
        await self._wait(self._first_listing, self._context.timings.first_listing)
        # An agent that does not respond delays no further request.
        self._first_listing.set()

    async def restore(self, plan: RestorePlan) -> Restored | None:
        """Restore a file into an idle slot. None if it failed."""
        context = self._context
        began = context.now()
        acting_since: float | None = None
        try:
            async with asyncio.timeout(plan.deadline), self._acting:
                acting_since = context.now()
                failure = await self._restore(plan)
        except TimeoutError:
            failure = RestoreFailure.BUSY if acting_since is None else RestoreFailure.TIMEOUT
        now = context.now()
        rates = context.index.rates
        if failure is RestoreFailure.TIMEOUT:
            rates.record_slow_read(plan.file.bytes, plan.deadline, now)
        if failure:
            context.metrics.restore_failures.inc(failure)
            return None
        rates.record_read(plan.file.bytes, now - (acting_since or now), now)
        context.metrics.restores.inc()
        context.metrics.bytes.add("read", plan.file.bytes)
        return Restored(plan, now - began)

    # The task.

    async def run(self) -> None:
        """Follow the replica until it has ended."""
        await self._join()
        while not self.ending:
            await self._maintain()
            await self._wait(self._ending, self._context.timings.poll)
            if not self._has_work:
                self._wake.clear()
                listed = self._context.now() - self._listed_at
                await self._wait(self._wake, self._context.timings.listing - listed)
        await self._end()

    @property
    def _has_work(self) -> bool:
        unsaved = any(not content.saved for content in self.contents.values())
        return self.ending or bool(self._pending or self._discarded) or unsaved

    @property
    def _is_unusable(self) -> bool:
        """Whether llama-server does not use its files, so that none are saved."""
        context = self._context
        return context.index.why_unusable(self.compatible, context.now()) is not None

    async def _join(self) -> None:
        """Read the files, until that has succeeded."""
        for attempt in count(1):
            listed = self.ending or await self._list()
            self._first_listing.set()
            if listed:
                return
            await self._wait(self._ending, self._context.timings.join.delay(attempt))

    async def _list(self) -> bool:
        """Read the files; return whether that has succeeded."""
        self._listed_at = self._context.now()
        try:
            listing = await self._agent.files()
            compatible = await self._describe(listing.identity)
        except OSError as error:
            self._set_problem(describe(error))
            return False
        if compatible is None:
            self._set_problem("llama-server does not describe its model and its build")
            return False
        self._set_problem("")
        if compatible != self.compatible:
            self.contents.clear()
        self.compatible = compatible
        self.sizes = {file.name: file.bytes for file in listing.files}
        index = self._context.index
        for number, file in enumerate(index.retain(self.name, compatible, listing.files), start=1):
            index.add(self.name, file)
            if number % _ADDED_AT_ONCE == 0:
                await asyncio.sleep(0)
        for file in listing.files:
            if file.compatible == compatible and file.tokens:
                index.rates.learn_size(file.bytes, file.tokens)
                break
        return True

    def _set_problem(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.info("replica %s: no prompt files: %s", self.name, problem)
        self.problem = problem

    async def _maintain(self) -> None:
        context = self._context
        if context.now() - self._listed_at >= context.timings.listing:
            await self._list()
        while self._discarded:
            await self._delete(self._discarded.pop())
        if self._pending:
            with suppress(OSError):
                await self._find_slots()
        if self._is_unusable:
            self.contents.clear()
        if self._acting.locked() or context.now() < self._paused_until:
            return
        load = context.load(self.name)
        if found := next_save(
            self._counted(), context.index, self.name, load, self._budget, context.now()
        ):
            await self._try_save(*found)

    def _counted(self) -> Collection[SlotContent]:
        """What the slots hold, with the number of requests for each."""
        contents = self.contents.values()
        for content in contents:
            content.seen = self._context.seen.count(content.prefixes)
        return contents

    async def _find_slots(self) -> None:
        """Find the slots of completed requests."""
        pending = list(self._pending)
        self._pending.clear()
        slots = await self._read_slots()
        found = find_slots(pending, slots, self.contents)
        for completed, slot in found:
            before = self.contents.get(slot.id)
            if before and completed.cached and not completed.restored:
                same = before.prefixes[0] == completed.prefixes[0]
                place = Place.SLOT if same else Place.MEMORY
                self._context.metrics.cached_tokens.add(place, completed.cached)
            self.contents[slot.id] = SlotContent(slot, completed.prefixes, completed.at)

    async def _read_slots(self) -> tuple[Slot, ...]:
        slots = await self._actions.slots()
        tasks = {slot.id: -1 if slot.task is None else slot.task for slot in slots}
        if any(self._tasks.get(slot, -1) > task for slot, task in tasks.items()):
            # Task numbers only grow: this is another process, with nothing in its memory.
            self.contents.clear()
            self._context.on_restarted(self.name)
        self._tasks = tasks
        return slots

    # Saves.

    async def _try_save(self, content: SlotContent, reason: SaveReason) -> bool:
        """Save a slot, or count why not; return whether others may be saved."""
        context = self._context
        try:
            async with self._acting:
                failure = await self._save(content, reason)
        except ActionFailedError as error:
            _log.warning("replica %s: cannot save a slot: %s", self.name, error)
            failure = SaveFailure.FAILED
        except AgentError as error:
            _log.warning("replica %s: cannot keep a prompt file: %s", self.name, error)
            failure = SaveFailure.NO_ROOM if error.status == NO_ROOM else SaveFailure.AGENT
            if error.status == INVALID_FILE:
                context.index.unusable[self.compatible or ""] = Unusable(
                    "what llama-server saves is rejected: the log of prompt-files shows why",
                    context.now() + context.timings.invalid,
                )
        except OSError as error:
            _log.info("replica %s: cannot save a slot: %s", self.name, describe(error))
            failure = SaveFailure.FAILED
        if failure:
            context.metrics.save_failures.inc(failure)
        if failure in {SaveFailure.REUSED, SaveFailure.FAILED}:
            self._forget(content)
        if failure is SaveFailure.NO_ROOM:
            context.full_at = context.now()
        if failure is None or failure is SaveFailure.REUSED:
            return True
        self._paused_until = context.now() + context.timings.pause
        return False

    async def _save(self, content: SlotContent, reason: SaveReason) -> SaveFailure | None:
        context = self._context
        slot = content.slot
        if self.compatible is None or slot not in await self._read_slots():
            return SaveFailure.REUSED
        rates = context.index.rates
        per_token = rates.bytes_per_token or _DEFAULT_BYTES_PER_TOKEN
        for name in await self._agent.make_room(round(slot.prompt_tokens * per_token)):
            self._removed(name)
        load = context.load(self.name)
        if reason is not SaveReason.ENDING and (load.queued or load.busy >= load.slots):
            # Later, when no request would wait for it.
            return None
        name = self._new_name(content)
        temporary = name + _TEMPORARY
        # What is left of a save that fails takes room until it is deleted.
        self._discarded.append(name)
        began = context.now()
        written = await self._unless_deferred(
            slot.id, self._actions.save(slot.id, temporary, context.timings.save)
        )
        if written is None:
            return SaveFailure.REUSED
        rates.record_write(written.bytes, written.tokens, context.now() - began)
        self._budget.spend(written.bytes, context.now())
        context.metrics.bytes.add("written", written.bytes)
        # A request that used the slot meanwhile has deferred the save: it has another prompt.
        if written.tokens != slot.prompt_tokens or slot not in await self._read_slots():
            return SaveFailure.REUSED
        file = PromptFile(name, written.bytes, written.tokens, content.prefixes, self.compatible)
        # From here on the agent deletes it after an error. It may complete it after a timeout.
        self._discarded.remove(name)
        removed = await self._agent.commit(temporary, file, once=content.seen < 2)
        content.saved = True
        context.index.add(self.name, file)
        self.sizes[name] = written.bytes
        for other in removed:
            self._removed(other)
        context.metrics.saves.inc(reason)
        context.on_saved(self.name, file)
        for shorter in context.index.superseded(self.name, file):
            await self._delete(shorter.name)
        return None

    def _new_name(self, content: SlotContent) -> str:
        # Two replicas with one folder must not write to the same file.
        parts = (self.name, self._context.now(), content.slot.id, content.prefixes, self.compatible)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _forget(self, content: SlotContent) -> None:
        if self.contents.get(content.slot.id) is content:
            del self.contents[content.slot.id]

    def _removed(self, name: str) -> None:
        self.sizes.pop(name, None)
        self._context.index.discard(self.name, name)

    async def _delete(self, name: str) -> None:
        self._removed(name)
        with suppress(OSError):
            await self._agent.delete(name)

    async def _end(self) -> None:
        """Save what is worth it, and tell the agent that the pod may end."""
        timings = self._context.timings
        while self._context.load(self.name).busy:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(timings.drained)
        try:
            async with asyncio.timeout(timings.ending):
                await self._save_all()
        except TimeoutError:
            _log.warning("replica %s: not all prompts were saved before its end", self.name)
        for seconds in timings.done:
            await asyncio.sleep(seconds)
            with suppress(OSError):
                await self._agent.done()
                break
        self.finished = True

    async def _save_all(self) -> None:
        if self.compatible is None or self._is_unusable:
            return
        if self._pending:
            with suppress(OSError):
                await self._find_slots()
        for content in worth_saving(self._counted(), self._context.index, self.name):
            if not await self._try_save(content, SaveReason.ENDING):
                return

    # Restores.

    async def _restore(self, plan: RestorePlan) -> RestoreFailure | None:
        file = plan.file
        try:
            await self._agent.use(file.name)
            slot = slot_to_restore_into(await self._read_slots(), self.contents)
            restored = await self._restore_into(slot, plan) if slot else None
            if slot is None or restored is None:
                return RestoreFailure.SLOTS
            if restored.tokens != file.tokens:
                raise ActionFailedError(f"{restored.tokens} tokens, not {file.tokens}")
        except ActionFailedError as error:
            _log.warning("replica %s: cannot restore a prompt: %s", self.name, error)
            await self._delete(file.name)
            return RestoreFailure.FAILED
        except AgentError as error:
            if error.status != NOT_FOUND:
                return RestoreFailure.AGENT
            self._removed(file.name)
            return RestoreFailure.GONE
        except OSError as error:
            _log.info("replica %s: cannot restore a prompt: %s", self.name, describe(error))
            late = isinstance(error, TimeoutError)
            return RestoreFailure.TIMEOUT if late else RestoreFailure.FAILED
        self.contents[slot.id] = SlotContent(
            replace(slot, prompt_tokens=restored.tokens),
            file.prefixes,
            self._context.now(),
            saved=True,
        )
        return None

    async def _restore_into(self, slot: Slot, plan: RestorePlan) -> SlotFile | None:
        self.contents.pop(slot.id, None)
        return await self._unless_deferred(
            slot.id, self._actions.restore(slot.id, plan.file.name, plan.deadline)
        )

    async def _unless_deferred(
        self, slot: int, action: Coroutine[Any, Any, SlotFile]
    ) -> SlotFile | None:
        """Run an action on a slot. None if a request uses the slot: it may run for minutes, and
        llama-server defers the action until its end, unless that is aborted."""
        task = asyncio.ensure_future(action)
        try:
            while True:
                await asyncio.wait((task,), timeout=self._context.timings.deferred)
                if task.done():
                    return task.result()
                # While the action runs, /slots does not respond.
                with suppress(OSError):
                    slots = await self._read_slots()
                    if any(each.id == slot and each.is_processing for each in slots):
                        return None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await event.wait()
