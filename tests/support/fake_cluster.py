"""A Kubernetes API in memory: what the operator counts on of a real one, and no more.

Server-side apply merges lists by name, drops what its manager no longer says, and changes neither
version nor generation where nothing changes. Nothing is defaulted: tests against a real API server
show that defaults make no difference.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from slotkeeper.api.reasons import is_allowed
from slotkeeper.kube.cluster import Conflict, Kind, Listing, Manifest, NotFound, WatchEvent
from slotkeeper.kube.kinds import EVENTS, kind_of

Place = tuple[Kind, str, str]
Json = TypeVar("Json")

PAGE = 3


class KilledError(BaseException):
    """The process under test ends here: nothing but the cluster outlives it."""


@dataclass(frozen=True)
class Write:
    """One write that changed something."""

    verb: str
    kind: str
    name: str


@dataclass(frozen=True)
class Change:
    """An object before and after; None where there was, or is, none."""

    version: int
    before: Manifest | None
    after: Manifest | None

    def event(self, labels: Mapping[str, str] | None) -> WatchEvent | None:
        """What a watch of objects with these labels shows of it: that one without them is gone."""
        before = self.before if self.before and _matches(self.before, labels) else None
        after = self.after if self.after and _matches(self.after, labels) else None
        shown = _copied(after or before)
        if shown is None:
            return None
        shown["metadata"]["resourceVersion"] = str(self.version)
        kind = "ADDED" if before is None else "MODIFIED" if after else "DELETED"
        return WatchEvent(kind, shown)


class FakeCluster:
    """Implements slotkeeper.kube.cluster.Cluster."""

    def __init__(self) -> None:
        self.objects: dict[Place, Manifest] = {}
        self.writes: list[Write] = []
        """Every write since the last `clear`, events aside, whether it changed anything or not."""
        self.reads = 0
        self.after_write: Mapping[int, BaseException] = {}
        """What to raise once so many writes are done, instead of an answer."""
        self.refuse: Callable[[str, Manifest], Exception | None] = lambda *_: None
        """What to raise instead of writing or listing: (verb, manifest) -> error."""
        self.webhook: Callable[[Any], None] = lambda _: None
        """Changes in place, as a mutating webhook does, what an apply is about to store."""
        self._applied: dict[Place, Manifest] = {}
        # As in etcd: no object has version 1.
        self._version = 1
        self.history: list[Change] = []
        """Every change of an object, whoever made it."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        self.reads += 1
        return _copied(self.objects.get((kind, namespace, name)))

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str = "",
    ) -> Listing:
        self._admit("list", {"kind": kind.kind})
        self.reads += 1
        items = [
            _copied(item)
            for (its_kind, its_namespace, its_name), item in self.objects.items()
            if its_kind == kind
            and namespace in {None, its_namespace}
            and name in {"", its_name}
            and _matches(item, labels)
        ]
        return Listing(items, str(self._version))

    async def pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> AsyncIterator[Listing]:
        listing = await self.list(kind, namespace, labels)
        for start in range(0, max(1, len(listing.items)), PAGE):
            items = listing.items[start : start + PAGE]
            yield Listing(items, listing.resource_version)

    async def create(self, manifest: Manifest) -> Manifest:
        place = _place(manifest)
        self._admit("create", manifest)
        if place in self.objects:
            raise Conflict(409, "AlreadyExists", f"{place[2]} already exists")
        self._store(place, _copied(manifest))
        self._count("create", manifest)
        return _copied(self.objects[place])

    async def apply(self, manifest: Manifest) -> Manifest:
        place = _place(manifest)
        self._admit("apply", manifest)
        found = self.objects.get(place)
        _check(manifest, found)
        manifest = _unguarded(manifest)
        merged = _without(found or {}, self._applied.get(place, {}), manifest)
        self._applied[place] = _copied(manifest)
        stored = _merge(merged, manifest)
        self.webhook(stored)
        self._store(place, stored)
        self._count("apply", manifest)
        return _copied(self.objects[place])

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> None:
        place = (kind, namespace, name)
        found = self.objects.get(place)
        if found is None:
            return
        self._admit("delete", found)
        if uid is not None and uid != found["metadata"]["uid"]:
            raise Conflict(409, "Conflict", f"{name} has another uid")
        self.remove(kind, namespace, name)
        self._count("delete", found)

    async def patch_status(self, manifest: Manifest) -> Manifest:
        place = _place(manifest)
        self._admit("patch_status", manifest)
        if place not in self.objects:
            raise NotFound(404, "NotFound", f"{place[2]} not found")
        _check_reasons(manifest["status"])
        guards = {"resourceVersion"} & set(manifest["metadata"])
        _check(
            {"metadata": {key: manifest["metadata"][key] for key in guards}}, self.objects[place]
        )
        self._store(place, self.objects[place] | {"status": _copied(manifest["status"])})
        self._count("patch_status", manifest)
        return _copied(self.objects[place])

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """What has happened since that version; then the stream ends."""
        since = int(resource_version or 0)
        for change in [change for change in self.history if change.version > since]:
            place = _place(change.after or change.before or {})
            asked_for = (
                place[0] == kind and namespace in {None, place[1]} and name in {"", place[2]}
            )
            if asked_for and (event := change.event(labels)):
                yield event

    def put(self, manifest: Manifest) -> Manifest:
        """Somebody else stores this object, whole."""
        place = _place(manifest)
        self._store(place, _copied(manifest))
        return _copied(self.objects[place])

    def edit(self, kind: Kind, namespace: str, name: str, change: Callable[[Any], None]) -> None:
        """Somebody else changes an object in place."""
        edited = _copied(self.objects[kind, namespace, name])
        change(edited)
        self._store((kind, namespace, name), edited)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """The object goes."""
        self._version += 1
        self._applied.pop((kind, namespace, name), None)
        gone = self.objects.pop((kind, namespace, name))
        self.history.append(Change(self._version, _copied(gone), None))

    def copy(self) -> "FakeCluster":
        """Another cluster, in which all is as it is in this one, and nothing was written."""
        other = FakeCluster()
        other.objects = {place: _copied(item) for place, item in self.objects.items()}
        other._applied = {place: _copied(item) for place, item in self._applied.items()}
        other._version = self._version
        other.history = list(self.history)
        return other

    def named(self, kind: Kind) -> dict[str, Manifest]:
        """All objects of a kind, in all namespaces, by name."""
        return {place[2]: item for place, item in self.objects.items() if place[0] == kind}

    def _admit(self, verb: str, manifest: Manifest) -> None:
        if error := self.refuse(verb, manifest):
            raise error

    def _count(self, verb: str, manifest: Manifest) -> None:
        if manifest["kind"] == EVENTS.kind:
            return
        self.writes.append(Write(verb, manifest["kind"], manifest["metadata"]["name"]))
        if fault := self.after_write.get(len(self.writes)):
            raise fault

    def _store(self, place: Place, manifest: Manifest) -> None:
        before = self.objects.get(place)
        was = _copied(before)
        metadata = manifest["metadata"]
        if before is None:
            metadata |= {"uid": f"uid-{self._version + 1}", "generation": 1}
        else:
            metadata |= {key: before["metadata"][key] for key in ("uid", "generation")}
            metadata["generation"] += manifest.get("spec") != before.get("spec")
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
            if manifest == before:
                return
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[place] = manifest
        self.history.append(Change(self._version, was, _copied(manifest)))


def _copied(tree: Json) -> Json:
    """As a tree is after a way through the network."""
    copied: Json = json.loads(json.dumps(tree))
    return copied


def _place(manifest: Manifest) -> Place:
    return kind_of(manifest), manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _matches(item: Manifest, labels: Mapping[str, str] | None) -> bool:
    found = item["metadata"].get("labels", {})
    return all(key in found and value in {"", found[key]} for key, value in (labels or {}).items())


def _check(manifest: Manifest, found: Manifest | None) -> None:
    metadata = manifest["metadata"]
    there = (found or {"metadata": {}})["metadata"]
    if "uid" in metadata and metadata["uid"] != there.get("uid"):
        raise Conflict(409, "Conflict", "uid mismatch")
    version = metadata.get("resourceVersion")
    # An apply creates what is not there, whatever version it names.
    if found is not None and version is not None and version != there["resourceVersion"]:
        raise Conflict(409, "Conflict", "the object has been modified")


def _check_reasons(status: Manifest) -> None:
    for condition in status.get("conditions", []):
        kind = condition["type"]
        reason = condition["reason"]
        assert is_allowed(kind, reason), f"{kind} must not have the reason {reason}"


def _unguarded(manifest: Manifest) -> Manifest:
    guards = {"uid", "resourceVersion"}
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in guards}
    return {**manifest, "metadata": metadata}


def _without(found: Any, said: Any, says: Any) -> Any:
    """What is left of `found` without what a manager `said` and no longer `says`."""
    trees = (found, said, says)
    if all(isinstance(tree, list) and _named(tree) for tree in trees):
        left = _without(*({item["name"]: item for item in tree} for tree in trees))
        return list(left.values())
    if not all(isinstance(tree, dict) for tree in trees):
        return _copied(found)
    return {
        key: _without(value, said.get(key), says.get(key))
        for key, value in found.items()
        if not (key in said and key not in says)
    }


def _merge(found: Any, says: Any) -> Any:
    if isinstance(found, dict) and isinstance(says, dict):
        merged = {key: _merge(found.get(key), value) for key, value in says.items()}
        return {**_copied(found), **merged}
    if isinstance(found, list) and isinstance(says, list) and _named(found) and _named(says):
        by_name = {item["name"]: item for item in found}
        others = [item for item in found if item["name"] not in {item["name"] for item in says}]
        return [_merge(by_name.get(item["name"]), item) for item in says] + _copied(others)
    return _copied(says)


def _named(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and "name" in item for item in items)
