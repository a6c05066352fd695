"""Folders of prompts on a node: one for each server with `promptCache.node`.

    PATH/NAMESPACE/UID

The agent creates the folder when a pod that mounts it is bound to the node, and removes it once the
API server has no server with this uid in the namespace. The folder is read before the servers are
listed, and a server exists before its pods: so no folder of an existing server is removed. A node
that was off when a server was deleted removes the folder when it is back.
"""

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from slotkeeper.api.group import GROUP, KIND, PLURAL, VERSION
from slotkeeper.error_text import describe
from slotkeeper.folder_descriptor import folder_in, names_in, open_folder
from slotkeeper.kube.cluster import UNREADABLE, Kind, Listing, Manifest
from slotkeeper.node_cache.metrics import Metrics
from slotkeeper.node_cache.usage import is_namespace, mounted_folders

SERVERS = Kind(GROUP, VERSION, PLURAL, KIND, metadata_only=True)

_UID = re.compile("[0-9a-z]+(-[0-9a-z]+)*")

_log = logging.getLogger(__name__)


class ServerFolder(NamedTuple):
    """The folder of a server."""

    namespace: str
    uid: str


class PromptsRoot:
    """The folder with all of them, by its descriptor."""

    def __init__(self, path: Path) -> None:
        self._root = open_folder(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def folders(self) -> list[ServerFolder]:
        """Return the folders that exist. Raises OSError."""
        found = []
        for namespace in sorted(filter(is_namespace, names_in(self._root))):
            with suppress(OSError), folder_in(self._root, namespace) as folder:
                uids = filter(_UID.fullmatch, names_in(folder))
                found += [ServerFolder(namespace, uid) for uid in sorted(uids)]
        return found

    def create(self, server: ServerFolder) -> None:
        """Create a folder, unless it exists. Raises OSError."""
        with suppress(FileExistsError):
            os.mkdir(server.namespace, 0o700, dir_fd=self._root)
        with folder_in(self._root, server.namespace) as folder, suppress(FileExistsError):
            os.mkdir(server.uid, 0o700, dir_fd=folder)

    def remove(self, server: ServerFolder) -> None:
        """Remove a folder with all that is in it. Raises OSError: something may then be left."""
        with folder_in(self._root, server.namespace) as folder:
            try:
                shutil.rmtree(server.uid, dir_fd=folder)
            except NotADirectoryError:
                os.unlink(server.uid, dir_fd=folder)


class Servers(Protocol):
    """The part of a Kubernetes API that lists servers. The method is that of ApiCluster."""

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Listing:
        """Return the objects of a namespace, or (None) of all."""


class PromptFolders:
    """Keeps the folders of one node. `path` is that of all of them on the node."""

    def __init__(
        self,
        root: PromptsRoot,
        servers: Servers,
        path: str,
        namespaces: Sequence[str | None],
        metrics: Metrics,
    ) -> None:
        self._root = root
        self._servers = servers
        self._path = path
        self._namespaces = namespaces
        self._metrics = metrics

    async def create_for(self, pods: Iterable[Manifest]) -> None:
        """Create the folders that pods of this node mount."""
        for server in sorted({each for pod in pods for each in required(pod, self._path)}):
            try:
                await asyncio.to_thread(self._root.create, server)
            except OSError as error:
                self._failed(f"folder {server.namespace}/{server.uid}", error)

    async def sweep(self) -> None:
        """Remove the folders of servers that do not exist any more.

        Raises ApiError and OSError; nothing has then been removed.
        """
        managed = None in self._namespaces
        folders = [
            each
            for each in await asyncio.to_thread(self._root.folders)
            if managed or each.namespace in self._namespaces
        ]
        if folders:
            existing = await self._existing()
            for server in folders:
                if server not in existing:
                    await self._remove(server)
        self._metrics.set_prompt_folders(len(folders))

    async def _existing(self) -> set[ServerFolder]:
        found = set()
        for namespace in self._namespaces:
            for item in (await self._servers.list(SERVERS, namespace)).items:
                metadata = item["metadata"]
                found.add(ServerFolder(metadata["namespace"], metadata["uid"]))
        return found

    async def _remove(self, server: ServerFolder) -> None:
        try:
            await asyncio.to_thread(self._root.remove, server)
        except OSError as error:
            self._failed(f"cannot remove prompts of {server.namespace}/{server.uid}", error)
            return
        self._metrics.count_removed_prompts()
        _log.info("removed the prompts of a deleted server: %s/%s", *server)

    def _failed(self, what: str, error: Exception) -> None:
        self._metrics.count_error()
        _log.warning("%s: %s", what, describe(error))


def required(pod: Manifest, path: str) -> list[ServerFolder]:
    """Return the folders that a pod mounts: only those of its own namespace."""
    own = pod["metadata"]["namespace"]
    if UNREADABLE in pod or not is_namespace(own):
        return []
    found = mounted_folders(pod, f"{path}/{own}")
    return [ServerFolder(own, uid) for uid in found if _UID.fullmatch(uid)]
