"""What the watches have shown of servers, of their children and of pods. No I/O.

A reconcile reads this instead of the API. A thousand servers have more than ten thousand objects.
They are kept without what nobody here looks at, as JSON, and compressed: as Python's trees they
would take thirty times the memory.
"""

import json
import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS, PODS, kind_of
from slotkeeper.kube.objects import Child, Key

Place = tuple[Kind, str, str]
"""Kind, namespace and name: what tells an object apart from all others at one time."""

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(slots=True)
class _Entry:
    uid: str
    version: int
    body: bytes
    """The object without its resource version, packed."""


class Store:
    """Objects by the server that they belong to.

    Whatever comes late changes nothing: an object gives way only to a newer version, and one that
    is gone stays gone. Resource versions are compared as the numbers that they are.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, dict[Child, _Entry]] = defaultdict(dict)
        self._owners: dict[Kind, dict[tuple[str, str], Key]] = defaultdict(dict)
        self._compressors: dict[Kind, _Compressor] = defaultdict(_Compressor)
        self._deleted: dict[Kind, dict[str, float]] = defaultdict(dict)
        """Version at which a uid went, infinite while no watch has shown that it did."""
        self._deleted_by_others: dict[Key, dict[Child, str]] = defaultdict(dict)
        """The uid of the owner that a child had which went, though nobody here deleted it."""

    @property
    def servers(self) -> list[Key]:
        """The servers that there are."""
        return list(self._owners[LLAMA_SERVERS].values())

    def server(self, key: Key) -> Manifest | None:
        """The server itself; None where there is none."""
        kept = self._entries.get(key, {}).get((LLAMA_SERVERS, key.name))
        return None if kept is None else self._whole(LLAMA_SERVERS, kept)

    def children(self, key: Key) -> dict[Child, Manifest]:
        """What carries the server's label, whoever owns it; its pods not among them."""
        return {
            child: self._whole(child[0], kept)
            for child, kept in self._entries.get(key, {}).items()
            if child[0] not in {LLAMA_SERVERS, PODS}
        }

    def pods(self, key: Key) -> list[Manifest]:
        """The pods that carry the server's label."""
        found = self._entries.get(key, {}).items()
        return [self._whole(kind, kept) for (kind, _), kept in found if kind == PODS]

    def deleted_by_others(self, key: Key, uid: str) -> list[Child]:
        """Children of the server with this uid that somebody else deleted, or took its label."""
        return [one for one, owner in self._deleted_by_others.get(key, {}).items() if owner == uid]

    def forget(self, key: Key) -> None:
        """There is no such server: nobody asks for what it has lost."""
        self._deleted_by_others.pop(key, None)

    def apply_event(self, event: WatchEvent) -> set[Key]:
        """A watch or a listing shows this: the servers for which it is news."""
        if event.type == "DELETED":
            return self._remove(event.object)
        return self.put(event.object)

    def replace_all(
        self, kind: Kind, uids: Mapping[tuple[str, str], str], resource_version: str
    ) -> set[Key]:
        """All objects of a kind have been shown, as they were at that version.

        `uids` are theirs by namespace and name. What is not among them is gone, unless it is newer.
        Returns the servers for which that is news.
        """
        version = int(resource_version)
        news = set()
        for (namespace, name), key in list(self._owners[kind].items()):
            kept = self._entries[key][kind, name]
            if kept.uid != uids.get((namespace, name)) and kept.version <= version:
                news.add(self._lose((kind, namespace, name)))
        there = set(uids.values())
        # Whatever comes late is about these only.
        self._deleted[kind] = {uid: at for uid, at in self._deleted[kind].items() if uid in there}
        return news

    def put(self, manifest: Manifest) -> set[Key]:
        """The object is this now, as far as its version is newer than what is known of it.

        Also for what the API server answers to a write: it is there at once, and the event that
        tells of it later is no news. Returns the servers for which this is news.
        """
        metadata = manifest["metadata"]
        kind = kind_of(manifest)
        version = int(metadata["resourceVersion"])
        place = (kind, metadata["namespace"], metadata["name"])
        whose = _owner(manifest)
        before = self._owners[kind].get(place[1:])
        known = None if before is None else self._entries[before][kind, place[2]]
        if version <= self._deleted[kind].get(metadata["uid"], 0):
            return set()
        if known is not None and version <= known.version:
            return set()
        kept = _Entry(metadata["uid"], version, self._compressors[kind].pack(_body(kind, manifest)))
        if whose == before and known is not None and known.body == kept.body:
            known.version = version
            return set()
        if known is not None and known.uid != kept.uid:
            self._deleted[kind][known.uid] = version
        news = set() if before is None or before == whose else {self._drop(place)}
        if whose is None:
            self._deleted[kind][metadata["uid"]] = version
        else:
            self._entries[whose][kind, place[2]] = kept
            self._found(whose, (kind, place[2]))
            self._owners[kind][place[1:]] = whose
            news.add(whose)
        return news

    def confirm_deleted(self, manifest: Manifest) -> None:
        """The API server has been told to delete this very object, and has agreed."""
        metadata = manifest["metadata"]
        kind = kind_of(manifest)
        self._deleted[kind][metadata["uid"]] = math.inf
        place = (kind, metadata["namespace"], metadata["name"])
        if self._uid(place) == metadata["uid"]:
            self._drop(place)

    def _whole(self, kind: Kind, kept: _Entry) -> Manifest:
        manifest: Manifest = json.loads(self._compressors[kind].unpack(kept.body))
        manifest["metadata"]["resourceVersion"] = str(kept.version)
        return manifest

    def _remove(self, manifest: Manifest) -> set[Key]:
        metadata = manifest["metadata"]
        place = (kind_of(manifest), metadata["namespace"], metadata["name"])
        # It may come back under the same uid: a watch by label says so of one that lost it.
        self._deleted[place[0]][metadata["uid"]] = int(metadata["resourceVersion"])
        return {self._lose(place)} if self._uid(place) == metadata["uid"] else set()

    def _lose(self, place: Place) -> Key:
        kind, _, name = place
        key = self._owners[kind][place[1:]]
        if kind not in {LLAMA_SERVERS, PODS}:
            metadata = self._whole(kind, self._entries[key][kind, name])["metadata"]
            for owner in metadata.get("ownerReferences") or []:
                if owner.get("controller"):
                    self._deleted_by_others[key][kind, name] = owner["uid"]
        return self._drop(place)

    def _found(self, key: Key, one: Child) -> None:
        lost = self._deleted_by_others.get(key, {})
        lost.pop(one, None)
        if not lost:
            self._deleted_by_others.pop(key, None)

    def _uid(self, place: Place) -> str | None:
        key = self._owners[place[0]].get(place[1:])
        return None if key is None else self._entries[key][place[0], place[2]].uid

    def _drop(self, place: Place) -> Key:
        kind, namespace, name = place
        key = self._owners[kind].pop((namespace, name))
        del self._entries[key][kind, name]
        if not self._entries[key]:
            del self._entries[key]
        return key


def uids_of(manifests: Iterable[Manifest]) -> dict[tuple[str, str], str]:
    """The uids of these objects by namespace and name, as `Store.listed` takes them."""
    listed = (manifest["metadata"] for manifest in manifests)
    return {(each["namespace"], each["name"]): each["uid"] for each in listed}


def _owner(manifest: Manifest) -> Key | None:
    metadata = manifest["metadata"]
    if kind_of(manifest) == LLAMA_SERVERS:
        return Key(metadata["namespace"], metadata["name"])
    owner = (metadata.get("labels") or {}).get(names.SERVER_LABEL)
    return Key(metadata["namespace"], owner) if owner else None


def _body(kind: Kind, manifest: Manifest) -> bytes:
    left_out = {"managedFields", "resourceVersion", "selfLink"}
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in left_out}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    said = {**manifest, "metadata": metadata}
    if kind == LEASES:
        # The balancers renew it every few seconds: that is theirs, and no news.
        said.pop("spec", None)
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()


class _Compressor:
    """Objects of one kind as few bytes, for they are much alike: what they have in common with the
    first one of them takes no room."""

    def __init__(self) -> None:
        self._first = b""

    def pack(self, text: bytes) -> bytes:
        self._first = self._first or text
        # A small window and little memory: its setting up is most of what it costs.
        packer = zlib.compressobj(1, zlib.DEFLATED, -13, 5, zdict=self._first)
        return packer.compress(text) + packer.flush()

    def unpack(self, packed: bytes) -> bytes:
        return zlib.decompressobj(-13, zdict=self._first).decompress(packed)
