"""Who set a field of an object, as its `metadata.managedFields` say. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.write.diff import Item, Path

Fields = Mapping[str, Any]
"""A set of fields as `fieldsV1` writes it: `f:spec`, `k:{"name":"a"}`, `.` for itself."""


def last_manager(item: Manifest, paths: Sequence[Path]) -> str:
    """The other field manager that last set one of these fields; "" where none is known.

    None is known of a field that was taken away, and of one that an admission webhook changed while
    somebody else wrote.
    """
    entries = [
        entry
        for entry in item["metadata"].get("managedFields") or []
        if entry.get("manager", FIELD_MANAGER) != FIELD_MANAGER
        and any(_has(entry.get("fieldsV1") or {}, path) for path in paths)
    ]
    newest = max(entries, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(newest["manager"]) if newest else ""


def _has(fields: Fields, path: Path) -> bool:
    for step in path:
        inner = _step(fields, step)
        if not inner:
            # A leaf: all that is below belongs to it.
            return inner is not None
        fields = inner
    return bool(path)


def _step(fields: Fields, step: str | Item) -> Fields | None:
    if isinstance(step, str):
        return fields.get(f"f:{step}")
    for name, inner in fields.items():
        kind, _, key = name.partition(":")
        if kind == "k" and _is_of(json.loads(key), step.wanted):
            found: Fields = inner
            return found
    return None


def _is_of(key: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    # What the manifest leaves out is a default, such as a port's protocol.
    return all(wanted.get(name, value) == value for name, value in key.items())
