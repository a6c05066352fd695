"""A Kubernetes API in memory, with the behavior of a real one that the operator depends on.

Server-side apply merges lists by name, removes fields that its manager no longer specifies, and
leaves version and generation as they are where nothing changes. Nothing is defaulted: tests against
a real API server show that defaults make no difference.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from slotkeeper.api.reasons import is_allowed
from slotkeeper.kube.cluster import Conflict, Kind, Listing, Manifest, NotFound, WatchEvent
from slotkeeper.kube.kinds import EVENTS, kind_of
from slotkeeper.kube.objects import without_preconditions

Place = tuple[Kind, str, str]
"""Kind, namespace and name: unique at any one time."""
Json = TypeVar("Json")

ATOMIC = {"selector", "podSelector", "nodeSelector"}
"""Fields that server-side apply replaces as a whole."""

PAGE = 3
"""Objects in a page of a listing."""


class KilledError(BaseException):
    """Kills the process under test: only the cluster is left."""


@dataclass(frozen=True)
class Write:
    """One accepted write."""

    verb: str
    kind: str
    name: str


@dataclass(frozen=True)
class Change:
    """An object before and after a change; None where it did not exist, or does not any more."""

    version: int
    before: Manifest | None
    after: Manifest | None

    def event(self, labels: Mapping[str, str] | None) -> WatchEvent | None:
        """The event of a watch of objects with these labels. An object that lost one is DELETED."""
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
        """Every write since the last `clear` except events, whether it changed anything or not."""
        self.reads = 0
        self.requests: list[tuple[str, str]] = []
        """Verb and kind of each attempted write and listing."""
        self.logs: dict[str, bytes | Exception] = {}
        """The log of each pod's llama-server, or the error of reading it."""
        self.log_reads: list[tuple[str, str, str]] = []
        self.raise_after_write: Mapping[int, BaseException] = {}
        """By number of writes: what to raise after the write was done, instead of a response."""
        self.inject_error: Callable[[str, Manifest], Exception | None] = lambda *_: None
        """(verb, manifest) -> what to raise instead of a write or listing. See `fail`."""
        self.webhook: Callable[[Any], None] = lambda _: None
        """Changes an applied object in place before it is stored, as a mutating webhook does."""
        self._applied: dict[Place, Manifest] = {}
        # As in etcd: no object has version 1.
        self._version = 1
        self.history: list[Change] = []
        """Every change of an object, by any writer."""

    # The Cluster protocol.

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
        self._admit("list", {"kind": kind.kind, "namespace": namespace})
        self.reads += 1
        items = [
            _copied(item)
            for (item_kind, item_namespace, item_name), item in self.objects.items()
            if item_kind == kind
            and namespace in {None, item_namespace}
            and name in {"", item_name}
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
        self._record_write("create", manifest)
        return _copied(self.objects[place])

    async def apply(self, manifest: Manifest) -> Manifest:
        place = _place(manifest)
        self._admit("apply", manifest)
        found = self.objects.get(place)
        _check_preconditions(manifest, found)
        manifest = without_preconditions(manifest)
        kept = _without_dropped(found or {}, self._applied.get(place, {}), manifest)
        self._applied[place] = _copied(manifest)
        merged = _merge(kept, manifest)
        self.webhook(merged)
        self._store(place, merged)
        self._record_write("apply", manifest)
        return _copied(self.objects[place])

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> None:
        place = (kind, namespace, name)
        found = self.objects.get(place)
        if found is None:
            return
        self._admit("delete", found)
        if uid is not None and uid != found["metadata"]["uid"]:
            raise Conflict(409, "Conflict", f"{name} has another uid")
        if found["metadata"].get("finalizers"):
            deletion = {"deletionTimestamp": "2026-11-01T12:00:00Z"}
            self.edit(kind, namespace, name, lambda item: item["metadata"].update(deletion))
        else:
            self.remove(kind, namespace, name)
        self._record_write("delete", found)

    async def patch_status(self, manifest: Manifest) -> Manifest:
        place = _place(manifest)
        self._admit("patch_status", manifest)
        if place not in self.objects:
            raise NotFound(404, "NotFound", f"{place[2]} not found")
        _check_reasons(manifest["status"])
        version = {
            key: value for key, value in manifest["metadata"].items() if key == "resourceVersion"
        }
        _check_preconditions({"metadata": version}, self.objects[place])
        self._store(place, self.objects[place] | {"status": _copied(manifest["status"])})
        self._record_write("patch_status", manifest)
        return _copied(self.objects[place])

    async def start_of_log(self, namespace: str, pod: str, container: str, max_bytes: int) -> bytes:
        self.log_reads.append((namespace, pod, container))
        found = self.logs.get(pod, b"")
        if isinstance(found, Exception):
            raise found
        return found[:max_bytes]

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Yield the events since that version; then the stream ends."""
        since = int(resource_version or 0)
        for change in [change for change in self.history if change.version > since]:
            place = _place(change.after or change.before or {})
            is_watched = (
                place[0] == kind and namespace in {None, place[1]} and name in {"", place[2]}
            )
            if is_watched and (event := change.event(labels)):
                yield event

    # Faults.

    def fail(self, error: Exception, verb: str = "", kind: Kind | None = None) -> None:
        """Raise this error instead of each write and listing of a verb and kind; by default of all.

        It replaces the error of an earlier call.
        """

        def inject(attempted: str, manifest: Manifest) -> Exception | None:
            is_affected = verb in {"", attempted} and (not kind or manifest["kind"] == kind.kind)
            return error if is_affected else None

        self.inject_error = inject

    def recover(self) -> None:
        """End `fail`."""
        self.inject_error = lambda *_: None

    # Other clients.

    def put(self, manifest: Manifest) -> Manifest:
        """Store a whole object as another client."""
        place = _place(manifest)
        self._store(place, _copied(manifest))
        return _copied(self.objects[place])

    def edit(self, kind: Kind, namespace: str, name: str, change: Callable[[Any], None]) -> None:
        """Change an object in place as another client."""
        edited = _copied(self.objects[kind, namespace, name])
        change(edited)
        self._store((kind, namespace, name), edited)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object as another client."""
        self._version += 1
        self._applied.pop((kind, namespace, name), None)
        removed = self.objects.pop((kind, namespace, name))
        self.history.append(Change(self._version, _copied(removed), None))

    # Tests.

    def copy(self) -> "FakeCluster":
        """Another cluster in the same state, with no recorded writes and no faults."""
        other = FakeCluster()
        other.objects = {place: _copied(item) for place, item in self.objects.items()}
        other._applied = {place: _copied(item) for place, item in self._applied.items()}
        other._version = self._version
        other.history = list(self.history)
        return other

    def restore(self, backup: "FakeCluster") -> None:
        """Go back to the state of a copy, as etcd does when it is restored from a snapshot: its
        versions are used a second time."""
        self.objects = {place: _copied(item) for place, item in backup.objects.items()}
        self._applied = {place: _copied(item) for place, item in backup._applied.items()}
        self._version = backup._version
        self.history = list(backup.history)

    def by_name(self, kind: Kind) -> dict[str, Manifest]:
        """All objects of a kind, in all namespaces, by name."""
        return {place[2]: item for place, item in self.objects.items() if place[0] == kind}

    def _admit(self, verb: str, manifest: Manifest) -> None:
        self.requests.append((verb, manifest["kind"]))
        if error := self.inject_error(verb, manifest):
            raise error

    def _record_write(self, verb: str, manifest: Manifest) -> None:
        if manifest["kind"] == EVENTS.kind:
            return
        self.writes.append(Write(verb, manifest["kind"], manifest["metadata"]["name"]))
        if fault := self.raise_after_write.get(len(self.writes)):
            raise fault

    def _store(self, place: Place, manifest: Manifest) -> None:
        before = self.objects.get(place)
        before_copy = _copied(before)
        metadata = manifest["metadata"]
        if before is None:
            metadata |= {"uid": metadata.get("uid", f"uid-{self._version + 1}"), "generation": 1}
        else:
            metadata |= {key: before["metadata"][key] for key in ("uid", "generation")}
            metadata["generation"] += manifest.get("spec") != before.get("spec")
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
            if manifest == before:
                return
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[place] = manifest
        self.history.append(Change(self._version, before_copy, _copied(manifest)))


def _copied(tree: Json) -> Json:
    """A copy, as after serialization."""
    copied: Json = json.loads(json.dumps(tree))
    return copied


def _place(manifest: Manifest) -> Place:
    return kind_of(manifest), manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _matches(item: Manifest, labels: Mapping[str, str] | None) -> bool:
    found = item["metadata"].get("labels", {})
    return all(key in found and value in {"", found[key]} for key, value in (labels or {}).items())


def _check_preconditions(manifest: Manifest, found: Manifest | None) -> None:
    metadata = manifest["metadata"]
    current = (found or {"metadata": {}})["metadata"]
    if "uid" in metadata and metadata["uid"] != current.get("uid"):
        raise Conflict(409, "Conflict", "uid mismatch")
    version = metadata.get("resourceVersion")
    # An apply creates a missing object, whatever version it specifies.
    if found is not None and version is not None and version != current["resourceVersion"]:
        raise Conflict(409, "Conflict", "the object has been modified")


def _check_reasons(status: Manifest) -> None:
    for condition in status.get("conditions", []):
        kind = condition["type"]
        reason = condition["reason"]
        assert is_allowed(kind, reason), f"{kind} must not have the reason {reason}"


def _without_dropped(found: Any, last: Any, applied: Any) -> Any:
    """`found` without the fields that its manager specified in `last` and not in `applied`."""
    trees = (found, last, applied)
    if all(isinstance(tree, list) and _has_names(tree) for tree in trees):
        left = _without_dropped(*({item["name"]: item for item in tree} for tree in trees))
        return list(left.values())
    if not all(isinstance(tree, dict) for tree in trees):
        return _copied(found)
    return {
        key: _without_dropped(value, last.get(key), applied.get(key))
        for key, value in found.items()
        if not (key in last and key not in applied)
    }


def _merge(found: Any, applied: Any) -> Any:
    if isinstance(found, dict) and isinstance(applied, dict):
        merged = {
            key: _copied(value) if key in ATOMIC else _merge(found.get(key), value)
            for key, value in applied.items()
        }
        return {**_copied(found), **merged}
    lists = isinstance(found, list) and isinstance(applied, list)
    if lists and _has_names(found) and _has_names(applied):
        by_name = {item["name"]: item for item in found}
        names = {item["name"] for item in applied}
        others = [item for item in found if item["name"] not in names]
        return [_merge(by_name.get(item["name"]), item) for item in applied] + _copied(others)
    return _copied(applied)


def _has_names(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and "name" in item for item in items)
