"""Which files of a node's cache its pods use, from their specs. Pure."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from slotkeeper.kube.cluster import UNREADABLE, Manifest
from slotkeeper.node_cache.policy import Entry
from slotkeeper.node_folder import content_ids

_ENDED = {"Succeeded", "Failed"}
"""Phases of pods whose containers never run again."""

_NAMESPACE = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Usage:
    """What pods use."""

    files: frozenset[tuple[str, str]]
    """Namespace and content ID."""
    folders: frozenset[str]
    """Namespaces with a pod that mounts their folder and names no file, such as one for debugging:
    it may use any of them."""

    def includes(self, entry: Entry) -> bool:
        """Whether a pod uses this entry."""
        return entry.namespace in self.folders or (entry.namespace, entry.name) in self.files


def is_namespace(name: str) -> bool:
    """Whether this may be the name of a namespace, and so of a folder of the cache."""
    return _NAMESPACE.fullmatch(name) is not None


def usage(pods: Iterable[Manifest], path: str) -> Usage:
    """Return what these pods use of the cache at `path` on their node.

    Of a pod, all arguments count that contain a content ID, so that a new container or flag is not
    overlooked. A pod that could not be read counts as using the folder of its namespace.
    """
    files: set[tuple[str, str]] = set()
    folders: set[str] = set()
    for pod in pods:
        if UNREADABLE in pod:
            folders.add(pod["metadata"]["namespace"])
            continue
        if pod.get("status", {}).get("phase") in _ENDED:
            continue
        named = {each for argument in _arguments(pod) for each in content_ids(argument)}
        for namespace in mounted_folders(pod, path):
            files.update((namespace, each) for each in named)
            if not named:
                folders.add(namespace)
    return Usage(frozenset(files), frozenset(folders))


def required_folder(pod: Manifest, path: str) -> str | None:
    """Return the namespace whose folder this pod needs; None if it needs none.

    Only a pod of that namespace gets it: no other may use it.
    """
    own = pod["metadata"]["namespace"]
    mounted = [] if UNREADABLE in pod else mounted_folders(pod, path)
    return own if is_namespace(own) and own in mounted else None


def mounted_folders(pod: Manifest, path: str) -> Iterator[str]:
    """Return the names of the folders in this one, on the node, that a pod mounts."""
    for volume in pod["spec"].get("volumes") or ():
        mounted = (volume.get("hostPath") or {}).get("path", "")
        folder, name = posixpath.split(_normal(mounted))
        if folder == _normal(path):
            yield name


def _normal(path: str) -> str:
    # normpath keeps two slashes at the start.
    return posixpath.normpath(f"/{path.lstrip('/')}")


def _arguments(pod: Manifest) -> Iterator[str]:
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        yield from container.get("command") or ()
        yield from container.get("args") or ()
