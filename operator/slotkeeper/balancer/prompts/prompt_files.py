"""The prompt files of all replicas, as the balancer that is the leader uses them."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from slotkeeper.api.demand_report import PromptCacheReport
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.prompt_metrics import Place, RestoreFailure
from slotkeeper.balancer.prompts.agent import Agent
from slotkeeper.balancer.prompts.compatibility import compatibility
from slotkeeper.balancer.prompts.context import (
    CompletedPrompt,
    PromptContext,
    PromptTimings,
    Restored,
)
from slotkeeper.balancer.prompts.replica import PromptReplica
from slotkeeper.balancer.prompts.slot_actions import SlotActions
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.scheduling import Dispatcher
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.prompt_files import Outcome, PromptFile, RestorePlan
from slotkeeper.scheduling.prompt_saves import ReplicaLoad

_log = logging.getLogger(__name__)

_RECENT_SECONDS = 600.0
"""For which a full folder, or files that are read too slowly, are reported."""
_COMPARED_NAMES = 16
"""Two folders that have one of these names in common are the same."""


Plan = Callable[[], RestorePlan | None]


@dataclass(frozen=True, slots=True)
class PromptRestore:
    """A restore before a request is sent."""

    replica: PromptReplica
    plan: Plan

    async def run(self) -> Restored | None:
        """Restore a file. None if there is none, or if that failed."""
        if self.replica.is_joining:
            # The first requests of a new replica gain the most: it has nothing in its memory.
            await self.replica.joined()
        plan = self.plan()
        return await self.replica.restore(plan) if plan else None


class PromptFiles:
    """Keeps what replicas have computed. `port`: of the agents, beside each replica.

    Prompts of less than `min_tokens` tokens are not saved.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        replicas: ReplicaSet,
        metrics: Metrics,
        port: int,
        min_tokens: int,
        timings: PromptTimings,
    ) -> None:
        self._dispatcher = dispatcher
        self._upstreams = replicas
        self._port = port
        self._min_tokens = min_tokens
        self._loop = asyncio.get_running_loop()
        self._context = PromptContext(
            now=self._loop.time,
            load=self._load,
            metrics=metrics.add_prompts(),
            timings=timings,
            on_saved=self._on_saved,
            on_restarted=dispatcher.affinity_scheduler.prefix_index.remove,
        )
        self._replicas: dict[str, PromptReplica] = {}
        self._tasks: dict[PromptReplica, asyncio.Task[None]] = {}
        self._targets: Collection[str] = ()
        dispatcher.affinity_scheduler.files = self._context.index

    # Replicas.

    def joined(self, name: str) -> None:
        """Use the files of a replica that has become ready. It may be a new process."""
        self._remove(name)
        self._start(name)

    def set_targets(self, targets: Mapping[str, bool], terminating: Collection[str] = ()) -> None:
        """Save what those replicas hold that are being deleted. See ReplicaSet.set_targets."""
        self._targets = targets
        for name in terminating:
            if name not in self._replicas:
                # This balancer has become the leader since: it has nothing to save.
                self._start(name)
        for name, replica in list(self._replicas.items()):
            if name in terminating or name not in targets:
                replica.end()
            if replica.finished and name not in targets:
                self._remove(name)

    def stop(self) -> None:
        """Forget all replicas: another balancer is the leader."""
        for name in list(self._replicas):
            self._remove(name)

    async def close(self) -> None:
        """Stop all tasks."""
        tasks = list(self._tasks.values())
        self.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, name: str) -> None:
        host = name.rpartition(":")[0].strip("[]")
        port = int(name.rpartition(":")[2])
        timings = self._context.timings
        replica = PromptReplica(
            name,
            self._context,
            Agent(host, self._port, timings.agent),
            SlotActions(host, port, timings.response),
            lambda identity: self._describe(name, identity),
        )
        self._replicas[name] = replica
        task = self._loop.create_task(self._run(replica))
        self._tasks[replica] = task
        task.add_done_callback(lambda _: self._tasks.pop(replica, None))

    async def _run(self, replica: PromptReplica) -> None:
        try:
            await replica.run()
        except Exception:
            # Its pod waits for some seconds, and all else works without prompt files.
            _log.exception("prompt files of replica %s", replica.name)
        if replica.name not in self._targets and self._replicas.get(replica.name) is replica:
            self._remove(replica.name)

    def _on_saved(self, name: str, file: PromptFile) -> None:
        saved_by = self._replicas.get(name)
        if saved_by is None:
            return
        some = list(itertools.islice(saved_by.sizes, _COMPARED_NAMES))
        for replica in self._replicas.values():
            if replica is saved_by:
                continue
            if any(name in replica.sizes for name in some):
                replica.added(file)
            elif saved_by.ending or not replica.sizes:
                # It may be the first file in their common folder.
                replica.list_again()

    def _remove(self, name: str) -> None:
        replica = self._replicas.pop(name, None)
        self._context.index.remove_replica(name)
        if replica and not replica.finished and (task := self._tasks.get(replica)):
            task.cancel()

    async def _describe(self, name: str, identity: str) -> str | None:
        models = await self._upstreams.request(name, "/v1/models")
        props = await self._upstreams.request(name, "/props")
        return compatibility(identity, models, props, self._upstreams.contexts.get(name, 0))

    def _load(self, name: str) -> ReplicaLoad:
        replica = self._dispatcher.replicas.get(name)
        queued = self._dispatcher.queued
        return ReplicaLoad(replica.slots, replica.busy, queued) if replica else ReplicaLoad(0, 0, 0)

    # Requests.

    def plan(
        self, name: str, prefixes: PrefixHashes, size: int, cached: int
    ) -> PromptRestore | None:
        """Return what to restore before a request is sent to a replica.

        None: nothing. `size`: of the request's body; `cached`: how many of its prefixes the replica
        has in its memory.
        """
        replica = self._replicas.get(name)
        if replica is None or replica.ending:
            return None
        context = self._context

        def plan() -> RestorePlan | None:
            return context.index.plan(name, prefixes, size, cached, context.now())

        return PromptRestore(replica, plan) if replica.is_joining or plan() else None

    async def can_restore(self, name: str, prefixes: PrefixHashes, size: int) -> bool:
        """Whether a replica that has just started would restore all of a prompt from a file."""
        replica = self._replicas.get(name)
        if replica is None:
            return False
        if replica.is_joining:
            await replica.joined()
        plan = self._context.index.plan(name, prefixes, size, 0, self._context.now())
        return plan is not None and plan.shared == len(prefixes)

    def completed(self, name: str, prompt: CompletedPrompt) -> None:
        """Record a completed request of a replica."""
        context = self._context
        replica = self._replicas.get(name)
        if prompt.compute_seconds is not None:
            context.index.rates.record_compute(prompt.computed, prompt.compute_seconds)
        if restored := prompt.restored:
            outcome = context.record.record(
                restored.plan, prompt.cached, prompt.computed, context.now()
            )
            if outcome is Outcome.GAINED:
                context.metrics.cached_tokens.add(Place.FILE, prompt.cached)
            else:
                context.metrics.restore_failures.inc(RestoreFailure.NOT_HONORED)
            if outcome is Outcome.USELESS_FILE and replica:
                replica.discard(restored.plan.file)
        if prompt.prefixes and prompt.computed + prompt.cached >= self._min_tokens:
            context.seen.record(prompt.prefixes)
            if replica:
                replica.completed(prompt)

    # Reports.

    def report(self) -> PromptCacheReport:
        """Return the state, for the operator."""
        context = self._context
        sizes: dict[str, int] = {}
        for replica in self._replicas.values():
            sizes.update(replica.sizes)
        restored = context.record.tokens_last_hour(context.now())
        reason, message = self._reason(restored)
        return PromptCacheReport(reason, message, sum(sizes.values()), len(sizes), restored)

    def _reason(self, restored: int) -> tuple[Reason, str]:
        """Return the reason and the message of the condition; the first row that applies.

        Without numbers that change all the time: the operator writes each change to the status.

        | the replicas                          | reason        |
        |---|---|
        | the files of none can be read         | Unreachable   |
        | none, or the files are still read     | NoReplica     |
        | did not use restored files            | NotHonored    |
        | have full folders                     | FolderFull    |
        | compute prompts quicker than they read | RestoreSlower |
        | else                                  | Active        |
        """
        context = self._context
        now = context.now()
        rates = context.index.rates
        replicas = [each for each in self._replicas.values() if not each.ending]
        known = [each for each in replicas if each.compatible]
        problem = next((each.problem for each in replicas if each.problem), None)
        unusable = [context.index.why_unusable(each.compatible, now) for each in known]
        if not known and problem:
            return Reason.UNREACHABLE, f"the prompt files of no replica can be read: {problem}"
        if not known:
            return Reason.NO_REPLICA, "no replica is ready, or its files are being read"
        if all(unusable):
            return Reason.NOT_HONORED, unusable[0] or ""
        if now - context.full_at < _RECENT_SECONDS:
            return Reason.FOLDER_FULL, "the folder of prompt files has no room for another one"
        if not restored and now - rates.slower_at < _RECENT_SECONDS:
            return Reason.RESTORE_SLOWER, "prompts are computed in less time than files are read"
        return Reason.ACTIVE, "prompts are saved to files, and restored from them"

    def page(self) -> dict[str, object]:
        """Return the state, for /debug/queue."""
        context = self._context
        rates = context.index.rates
        report = self.report()
        return {
            "reason": report.reason,
            "message": report.message,
            "restoredTokensLastHour": report.restored_tokens_last_hour,
            "computeTokensPerSecond": round(rates.tokens_per_second, 1),
            "readBytesPerSecond": round(rates.read_rate(context.now())),
            "bytesPerToken": rates.bytes_per_token and round(rates.bytes_per_token),
            "replicas": [
                {
                    "name": replica.name,
                    "compatible": replica.compatible,
                    "files": len(replica.sizes),
                    "usableFiles": len(context.index.names(replica.name)),
                    "bytes": sum(replica.sizes.values()),
                    "slotsWithPrompts": len(replica.contents),
                    "unsavedSlots": sum(not each.saved for each in replica.contents.values()),
                    "ending": replica.ending,
                    "problem": replica.problem or None,
                }
                for replica in self._replicas.values()
            ],
        }
