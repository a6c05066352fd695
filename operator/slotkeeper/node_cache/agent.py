"""The agent: creates the folders that pods need, and removes the models that none uses."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from slotkeeper import logs
from slotkeeper.backoff import Backoff
from slotkeeper.error_text import describe
from slotkeeper.kube.cluster import ApiError, Gone, Kind, Listing, Manifest, WatchEvent
from slotkeeper.kube.kinds import PODS
from slotkeeper.node_cache.folder import Folder, Scan
from slotkeeper.node_cache.metrics import Metrics
from slotkeeper.node_cache.policy import Entry, plan
from slotkeeper.node_cache.usage import Usage, required_folder, usage
from slotkeeper.node_folder import Limits

REFRESH_SECONDS = 30.0
"""Between two lists of the node's pods while nothing has to be removed. Each marks the models that
pods use: when the pods are deleted, their last use is at most this long ago. Shorter than a
download waits for room."""

_RETRY = Backoff(0.1, 30.0)

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Pods(Protocol):
    """The part of a Kubernetes API that the agent uses. The methods are those of ApiCluster."""

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        node: str = "",
    ) -> Listing:
        """Return the objects, of pods only those on a node."""

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        node: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes to what `list` would return."""


@dataclass(frozen=True)
class Node:
    """The node that this runs on."""

    name: str
    path: str
    """Of the cache."""
    namespaces: Sequence[str | None]
    """Whose pods may use it; None for all."""


class Agent:
    """Keeps the cache of one node within its limits."""

    def __init__(
        self, folder: Folder, pods: Pods, node: Node, limits: Limits, metrics: Metrics
    ) -> None:
        self._folder = folder
        self._pods = pods
        self._node = node
        self._limits = limits
        self._metrics = metrics
        self._next_list = 0.0
        self._used = usage((), node.path)
        """As of the last list."""
        self.create_prompts: Callable[[Iterable[Manifest]], Awaitable[None]] | None = None
        """Called with pods of the node, which may need folders of prompts."""

    async def prepare_existing(self) -> None:
        """Write the limits into the folders that exist."""
        for namespace in await asyncio.to_thread(self._folder.namespaces):
            await self._prepare(namespace)

    async def follow(self, namespace: str | None) -> None:
        """Create the folders of pods as soon as these are bound to the node. Never returns."""
        failures = 0
        while True:
            try:
                listing = await self._list(namespace)
                failures = 0
                await self._prepare_for(listing.items)
                version = listing.resource_version
                watch = self._pods.watch(PODS, namespace, None, version, node=self._node.name)
                async for event in watch:
                    if event.type in {"ADDED", "MODIFIED"}:
                        await self._prepare_for([event.object])
            except Gone:
                pass  # the next iteration lists again
            except ApiError as error:
                failures += 1
                self._failed("watch of the pods of this node", error)
            await asyncio.sleep(_RETRY.delay(max(1, failures)))

    async def sweep(self, monotonic: float, now_ns: int) -> None:
        """Remove what exceeds the limits, of the models that no pod uses.

        The pods are listed only if something would be removed by what is known of them, or after
        REFRESH_SECONDS. Raises ApiError and OSError; nothing has then been removed.
        """
        scan = await asyncio.to_thread(self._folder.scan)
        self._metrics.set_scan(scan)
        known = plan(scan.entries, self._used.includes, self._limits, scan.disk, now_ns)
        if monotonic < self._next_list and not known.remove:
            return
        pods: list[Manifest] = []
        for namespace in self._node.namespaces:
            pods += (await self._list(namespace)).items
        used = usage(pods, self._node.path)
        in_use = [each for each in scan.entries if used.includes(each)]
        for entry in in_use:
            await self._attempt("mark", entry, partial(self._folder.mark_used, now_ns=now_ns))
        excess = await self._remove_excess(scan, used, now_ns)
        self._metrics.set_use(sum(each.size for each in in_use), excess)
        if excess:
            _log.warning("%d bytes exceed the limits, and are of files in use", excess)
        self._used = used
        self._next_list = monotonic + REFRESH_SECONDS

    async def _remove_excess(self, scan: Scan, used: Usage, now_ns: int) -> int:
        """Remove models, and others instead of those that cannot be removed; return the bytes that
        exceed the limits nevertheless."""
        entries, free = list(scan.entries), scan.disk.free
        kept: set[Entry] = set()
        while True:
            found = plan(
                entries,
                lambda entry: entry in kept or used.includes(entry),
                self._limits,
                replace(scan.disk, free=free),
                now_ns,
            )
            failed = [each for each in found.remove if not await self._is_removed(each)]
            if not failed:
                return found.excess
            kept.update(failed)
            for entry in set(found.remove).difference(failed):
                entries.remove(entry)
                free += entry.size

    async def _is_removed(self, entry: Entry) -> bool:
        """Remove an entry, if it is possible."""
        removed = await self._attempt("remove", entry, self._folder.remove)
        if removed:
            self._metrics.count_removed(entry)
            _log.info(
                "removed %s/%s: %d bytes, last used at %s",
                *(entry.namespace, entry.name, entry.size, logs.utc_text(entry.used_ns / 10**9)),
            )
        elif removed is False:
            _log.info("in use again: %s/%s", entry.namespace, entry.name)
        return bool(removed)

    async def _list(self, namespace: str | None) -> Listing:
        return await self._pods.list(PODS, namespace, node=self._node.name)

    async def _prepare_for(self, pods: Iterable[Manifest]) -> None:
        pods = list(pods)
        if self.create_prompts:
            await self.create_prompts(pods)
        required = {required_folder(pod, self._node.path) for pod in pods}
        missing = {each for each in required if each} - set(self._folder.namespaces())
        for namespace in sorted(missing):
            await self._prepare(namespace)

    async def _prepare(self, namespace: str) -> None:
        try:
            await asyncio.to_thread(self._folder.prepare, namespace, self._limits)
        except OSError as error:
            self._failed(f"folder of namespace {namespace}", error)

    async def _attempt(
        self, verb: str, entry: Entry, action: Callable[[Entry], Result]
    ) -> Result | None:
        """Do something with one entry, whose errors do not concern the others: None after one."""
        try:
            return await asyncio.to_thread(action, entry)
        except OSError as error:
            self._failed(f"cannot {verb} {entry.namespace}/{entry.name}", error)
            return None

    def _failed(self, what: str, error: Exception) -> None:
        self._metrics.count_error()
        _log.warning("%s: %s", what, describe(error))
