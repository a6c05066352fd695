"""Whether an object satisfies a manifest, and where it differs. Pure.

The API server adds defaults and rewrites quantities, so that the two are never equal. Every field
of the manifest must have its value in the object; fields that only the object has belong to others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from slotkeeper.api import quantity

Json = Any

_MERGE_KEYS = ("name", "mountPath", "uid")
"""Fields that identify the items of a list, so that an item that others add is no difference."""

# The API server omits these where they are false (Go's omitempty). Any other absent field is a
# difference: where the default is true, removing a `false` changes the value.
_FALSE_WHEN_ABSENT = {"publishNotReadyAddresses", "readOnly"}

_QUANTITIES = {"requests", "limits"}

_SELECTORS = {"selector", "podSelector", "nodeSelector"}
"""Selectors that a manifest sets as a whole: a further requirement, which others add, selects
other objects. To server-side apply they are atomic."""


@dataclass(frozen=True)
class Item:
    """A step into a list: the item whose field `key` has the value that `desired` has."""

    key: str
    desired: dict[str, Json]


Path = tuple[str | Item, ...]
"""A field's place in an object, from the root; () is the object itself."""


def satisfies(desired: Json, found: Json) -> bool:
    """Whether every field of `desired` has its value in `found`."""
    if isinstance(desired, dict):
        return isinstance(found, dict) and all(
            _field_satisfies(name, value, found) for name, value in desired.items()
        )
    if isinstance(desired, list):
        return isinstance(found, list) and _list_satisfies(desired, found)
    return bool(desired == found)


def differences(desired: Json, found: Json) -> Iterator[Path]:
    """The fields of `desired` that differ in `found`, as deep as both have them."""
    if isinstance(desired, dict) and isinstance(found, dict):
        for name, value in desired.items():
            if not _field_satisfies(name, value, found):
                whole = name in _QUANTITIES | _SELECTORS or name not in found
                inner: Iterable[Path] = [()] if whole else _inner(value, found[name])
                yield from ((name, *rest) for rest in inner)
    elif isinstance(desired, list) and isinstance(found, list) and (key := _merge_key(desired)):
        by_key = _by_key(found, key)
        for item in desired:
            for rest in _inner(item, by_key.get(item[key])):
                yield (Item(key, item), *rest)
    elif not satisfies(desired, found):
        yield ()


def field_path(path: Path) -> str:
    """A path for people: `spec.template.spec.containers[llama-server].image`."""
    return "".join(map(_path_step, path)).removeprefix(".")


def _inner(desired: Json, found: Json) -> Iterable[Path]:
    return [()] if found is None else differences(desired, found)


def _path_step(step: str | Item) -> str:
    if isinstance(step, Item):
        return f"[{step.desired[step.key]}]"
    return f".{step}" if step.isalnum() else f"[{step}]"


def _field_satisfies(name: str, desired: Json, found: dict[str, Json]) -> bool:
    if name not in found:
        return desired is None or (name in _FALSE_WHEN_ABSENT and not desired)
    if name in _QUANTITIES and isinstance(desired, dict):
        return _quantities_satisfy(desired, found[name])
    if name in _SELECTORS:
        return bool(desired == found[name])
    return satisfies(desired, found[name])


def _quantities_satisfy(desired: dict[str, Json], found: Json) -> bool:
    return isinstance(found, dict) and all(
        name in found and quantity.parse(amount) == quantity.parse(found[name])
        for name, amount in desired.items()
    )


def _list_satisfies(desired: list[Json], found: list[Json]) -> bool:
    if key := _merge_key(desired):
        by_key = _by_key(found, key)
        return all(item[key] in by_key and satisfies(item, by_key[item[key]]) for item in desired)
    return len(desired) == len(found) and all(map(satisfies, desired, found))


def _merge_key(desired: list[Json]) -> str | None:
    for key in _MERGE_KEYS:
        if desired and all(isinstance(item, dict) and key in item for item in desired):
            return key
    return None


def _by_key(found: list[Json], key: str) -> dict[Json, Json]:
    return {item.get(key): item for item in found if isinstance(item, dict)}
