"""Which field manager set a field, from an object's `metadata.managedFields`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.bounded_json import parse
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.write.diff import Item, Path

Fields = Mapping[str, Any]
"""A set of fields in the form of `fieldsV1`: `f:spec`, `k:{"name":"a"}`, `.` for itself."""


def last_manager(item: Manifest, paths: Sequence[Path]) -> str:
    """The other field manager that last set one of these fields; "" where it is not recorded.

    It is not recorded for a field that was removed, nor for one that an admission webhook changed
    during another client's write.
    """
    entries = [
        entry
        for entry in item["metadata"].get("managedFields") or []
        if entry.get("manager", FIELD_MANAGER) != FIELD_MANAGER
        and any(_contains(entry.get("fieldsV1") or {}, path) for path in paths)
    ]
    newest = max(entries, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(newest["manager"]) if newest else ""


def _contains(fields: Fields, path: Path) -> bool:
    for step in path:
        inner = _step(fields, step)
        if not inner:
            # A leaf includes everything below it.
            return inner is not None
        fields = inner
    return bool(path)


def _step(fields: Fields, step: str | Item) -> Fields | None:
    if isinstance(step, str):
        return fields.get(f"f:{step}")
    for name, inner in fields.items():
        kind, _, key = name.partition(":")
        if kind == "k" and _matches(parse(key, max_bytes=len(key)), step.desired):
            found: Fields = inner
            return found
    return None


def _matches(key: Mapping[str, Any], desired: Mapping[str, Any]) -> bool:
    # A key that the manifest leaves out has its default, such as a port's protocol.
    return all(desired.get(name, value) == value for name, value in key.items())
