"""The store: resources, their children and pods, as watches and listings showed them last. No I/O.

There is one for LlamaServers and one for LlamaGateways. Below, "server" stands for either.

Reconcile passes read it instead of the API. A thousand servers have more than ten thousand objects.
They are kept as compressed JSON, without what `kept` leaves out: as Python objects they would take
thirty times the memory.
"""

import json
import logging
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import (
    JOBS,
    LLAMA_GATEWAYS,
    LLAMA_SERVERS,
    PODS,
    REPLICA_SETS,
    kind_of,
)
from slotkeeper.kube.objects import Child, Key
from slotkeeper.reconcile.isolation import Isolation
from slotkeeper.reconcile.watch.kept import Kept, kept

Place = tuple[Kind, str, str]
"""Kind, namespace and name: unique at any one time."""

_ENDS = {"Complete", "Failed", "FailureTarget"}
"""Conditions of a Job that has ended, or whose pods are being terminated."""

_NO_CHILDREN = frozenset({LLAMA_SERVERS, LLAMA_GATEWAYS, REPLICA_SETS, PODS})

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    uid: str
    version: int
    body: bytes
    """What is kept of the object, compressed."""
    unreadable: bool
    """Whether that is an outline."""
    outdated: bool = False
    """From before a restore of the API server's data: any version is newer."""


class Store:
    """Objects by the server that they belong to.

    Late events change nothing: an object is replaced only by a newer version, and a deleted one
    stays deleted. Resource versions are compared as numbers. Where a listing shows that they went
    back, because the API server's data was restored from a backup, `start_anew` forgets them.
    """

    def __init__(self, kind: Kind = LLAMA_SERVERS) -> None:
        self.kind = kind
        """Of the resources."""
        self.label = names.OWNER_LABELS[kind.kind]
        """Of their children and pods, with the resource's name."""
        self._entries: dict[Key, dict[Child, _Entry]] = defaultdict(dict)
        self._owners: dict[Kind, dict[tuple[str, str], Key]] = defaultdict(dict)
        self._compressors: dict[Kind, _Compressor] = defaultdict(_Compressor)
        self._deleted: dict[Kind, dict[tuple[str, str], float]] = defaultdict(dict)
        """Version at which the object with a namespace and uid was deleted; infinite until a watch
        shows it."""
        self._newest: dict[Kind, int] = defaultdict(int)
        self._deleted_by_others: dict[Key, dict[Child, str]] = defaultdict(dict)
        """Owner's uid of each child that was deleted, and not by the operator."""
        self._unreadable = Counter[Kind]()
        self._changes = 0
        self._revisions: dict[Key, int] = {}
        self.isolation = Isolation("watch")
        """Of errors that single objects cause, for those who fill the store."""

    @property
    def keys(self) -> list[Key]:
        """All servers."""
        return list(self._owners[self.kind].values())

    def resource(self, key: Key) -> Manifest | None:
        """The server itself; None where it does not exist."""
        entry = self._entries.get(key, {}).get((self.kind, key.name))
        return None if entry is None else self._load(self.kind, entry)

    def is_unreadable(self, key: Key) -> bool:
        """Whether only an outline of the server is kept."""
        entry = self._entries.get(key, {}).get((self.kind, key.name))
        return entry is not None and entry.unreadable

    def children(self, key: Key) -> dict[Child, Manifest]:
        """All objects with the server's label, whatever their owner, except pods."""
        return {
            child: self._load(child[0], entry)
            for child, entry in self._entries.get(key, {}).items()
            if child[0] not in _NO_CHILDREN
        }

    def revision(self, key: Key) -> int:
        """A number that differs whenever anything of the server has changed, except for itself:
        what was computed from children, ReplicaSets and pods holds as long as it is the same."""
        return self._revisions.get(key, 0)

    def pods(self, key: Key) -> list[Manifest]:
        """The readable pods with the server's label, whatever their owner."""
        return self._all(key, PODS)

    def replica_sets(self, key: Key) -> list[Manifest]:
        """The ReplicaSets with the server's label, whatever their owner: see `kept`."""
        return self._all(key, REPLICA_SETS)

    def unreadable(self) -> dict[str, int]:
        """Return the number of objects that are kept as outlines, by kind. Thread-safe."""
        return {kind.kind: count for kind, count in self._unreadable.copy().items()}

    def deleted_by_others(self, key: Key, uid: str) -> list[Child]:
        """Children of the server with this uid that others deleted, or removed its label from."""
        return [one for one, owner in self._deleted_by_others.get(key, {}).items() if owner == uid]

    def forget(self, key: Key) -> None:
        """The server does not exist: drop the record of its deleted children."""
        self._deleted_by_others.pop(key, None)

    def apply_event(self, event: WatchEvent) -> set[Key]:
        """Apply an event of a watch. Returns the servers for which anything changed."""
        if event.type == "DELETED":
            return self._remove(event.object)
        return self.put(event.object)

    def newest(self, kind: Kind) -> int:
        """The newest version of an object of this kind that the store was ever shown. A listing
        that begins later is not older, unless the API server's data was restored from a backup."""
        return self._newest[kind]

    def start_anew(self, kind: Kind) -> None:
        """Forget which version of these objects is newer. They are kept until the next listing is
        complete, so that none of them seems to be missing."""
        self._newest[kind] = 0
        self._deleted[kind].clear()
        for (_, name), key in self._owners[kind].items():
            self._entries[key][kind, name].outdated = True

    def replace_all(
        self,
        kind: Kind,
        uids: Mapping[tuple[str, str], str],
        resource_version: str,
        within: str | None = None,
    ) -> set[Key]:
        """Complete a listing of a kind at this version, whose objects were `put` before.

        `uids`: theirs by namespace and name. All others of the namespace `within`, or (None) of
        all, are deleted, unless they are newer. Returns the servers for which anything changed.
        """
        version = int(resource_version)
        changed = set()
        for (namespace, name), key in list(self._owners[kind].items()):
            if within not in {None, namespace}:
                continue
            entry = self._entries[key][kind, name]
            is_older = entry.outdated or entry.version <= version
            if entry.uid != uids.get((namespace, name)) and is_older:
                changed.add(self._delete((kind, namespace, name)))
        existing = set(uids.values())
        # Late events can only concern these.
        self._deleted[kind] = {
            (namespace, uid): at
            for (namespace, uid), at in self._deleted[kind].items()
            if uid in existing or within not in {None, namespace}
        }
        return changed

    def put(self, manifest: Manifest) -> set[Key]:
        """Store an object if it is newer than what is stored.

        Also for the API server's response to a write: the event that follows is then no change.
        Returns the servers for which anything changed.
        """
        metadata = manifest["metadata"]
        kind = kind_of(manifest)
        version = int(metadata["resourceVersion"])
        place = (kind, metadata["namespace"], metadata["name"])
        owner = self._owner(manifest)
        self._newest[kind] = max(self._newest[kind], version)
        before = self._owners[kind].get(place[1:])
        stored = None if before is None else self._entries[before][kind, place[2]]
        identity = (metadata["namespace"], metadata["uid"])
        if version <= self._deleted[kind].get(identity, 0):
            return set()
        if stored is not None and version <= stored.version and not stored.outdated:
            return set()
        new = kept(kind, manifest)
        body = self._compressors[kind].compress(new.body)
        if owner == before and stored is not None and stored.body == body:
            stored.version, stored.outdated = version, False
            return set()
        if stored is not None and stored.uid != metadata["uid"]:
            self._deleted[kind][place[1], stored.uid] = version
        changed = set() if before is None or before == owner else {self._drop(place)}
        if owner is None:
            self._deleted[kind][identity] = version
        else:
            self._count_unreadable(place, stored if before == owner else None, new)
            entry = _Entry(metadata["uid"], version, body, bool(new.unreadable))
            self._entries[owner][kind, place[2]] = entry
            self._forget_deletion(owner, (kind, place[2]))
            self._owners[kind][place[1:]] = owner
            self._revise(owner, kind)
            changed.add(owner)
        return changed

    def confirm_deleted(self, manifest: Manifest) -> None:
        """The API server has accepted the deletion of exactly this object."""
        metadata = manifest["metadata"]
        kind = kind_of(manifest)
        place = (kind, metadata["namespace"], metadata["name"])
        self._deleted[kind][place[1], metadata["uid"]] = math.inf
        if self._uid(place) == metadata["uid"]:
            self._drop(place)
        elif key := self._owner(manifest):
            # The watch has shown it before the response.
            self._forget_deletion(key, (kind, place[2]))

    def _owner(self, manifest: Manifest) -> Key | None:
        metadata = manifest["metadata"]
        if kind_of(manifest) == self.kind:
            return Key(metadata["namespace"], metadata["name"])
        owner = (metadata.get("labels") or {}).get(self.label)
        return Key(metadata["namespace"], owner) if owner else None

    def _all(self, key: Key, kind: Kind) -> list[Manifest]:
        return [
            self._load(kind, entry)
            for (each, _), entry in self._entries.get(key, {}).items()
            if each == kind and not entry.unreadable
        ]

    def _count_unreadable(self, place: Place, stored: _Entry | None, new: Kept) -> None:
        kind, namespace, name = place
        was = stored is not None and stored.unreadable
        self._unreadable[kind] += bool(new.unreadable) - was
        if new.unreadable and not was:
            reason = new.unreadable
            log.warning("%s %s/%s is not read: %s", kind.kind, namespace, name, reason)

    def _load(self, kind: Kind, entry: _Entry) -> Manifest:
        manifest: Manifest = json.loads(self._compressors[kind].decompress(entry.body))
        manifest["metadata"]["resourceVersion"] = str(entry.version)
        return manifest

    def _remove(self, manifest: Manifest) -> set[Key]:
        metadata = manifest["metadata"]
        place = (kind_of(manifest), metadata["namespace"], metadata["name"])
        version = int(metadata["resourceVersion"])
        self._newest[place[0]] = max(self._newest[place[0]], version)
        # It may be put again with the same uid: a watch by label reports an object that lost the
        # label as deleted.
        self._deleted[place[0]][place[1], metadata["uid"]] = version
        return {self._delete(place)} if self._uid(place) == metadata["uid"] else set()

    def _delete(self, place: Place) -> Key:
        kind, _, name = place
        key = self._owners[kind][place[1:]]
        if kind not in _NO_CHILDREN:
            manifest = self._load(kind, self._entries[key][kind, name])
            for owner in manifest["metadata"].get("ownerReferences") or []:
                # Whoever removes a Job that has ended wants another one, or none.
                if not _has_ended(kind, manifest) and owner.get("controller"):
                    self._deleted_by_others[key][kind, name] = owner["uid"]
        return self._drop(place)

    def _forget_deletion(self, key: Key, one: Child) -> None:
        """Forget that others deleted a child: it exists, or the operator has deleted it."""
        deleted = self._deleted_by_others.get(key, {})
        deleted.pop(one, None)
        if not deleted:
            self._deleted_by_others.pop(key, None)

    def _uid(self, place: Place) -> str | None:
        key = self._owners[place[0]].get(place[1:])
        return None if key is None else self._entries[key][place[0], place[2]].uid

    def _drop(self, place: Place) -> Key:
        kind, namespace, name = place
        key = self._owners[kind].pop((namespace, name))
        self._unreadable[kind] -= self._entries[key].pop((kind, name)).unreadable
        self._revise(key, kind)
        if not self._entries[key]:
            del self._entries[key]
            self._revisions.pop(key, None)
        return key

    def _revise(self, key: Key, kind: Kind) -> None:
        # The status of a busy server changes every second.
        if kind != self.kind:
            self._changes += 1
            self._revisions[key] = self._changes


def _has_ended(kind: Kind, manifest: Manifest) -> bool:
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    return kind == JOBS and any(
        each["type"] in _ENDS and each["status"] == "True" for each in conditions
    )


def uids_of(manifests: Iterable[Manifest]) -> dict[tuple[str, str], str]:
    """The uids of these objects by namespace and name, as `Store.replace_all` takes them."""
    listed = (manifest["metadata"] for manifest in manifests)
    return {(each["namespace"], each["name"]): each["uid"] for each in listed}


class _Compressor:
    """Compresses objects of one kind, with the first of them as dictionary: they are much alike."""

    def __init__(self) -> None:
        self._first = b""

    def compress(self, text: bytes) -> bytes:
        self._first = self._first or text
        # A small window and little memory: setting up is most of the cost.
        compressor = zlib.compressobj(1, zlib.DEFLATED, -13, 5, zdict=self._first)
        return compressor.compress(text) + compressor.flush()

    def decompress(self, compressed: bytes) -> bytes:
        return zlib.decompressobj(-13, zdict=self._first).decompress(compressed)
