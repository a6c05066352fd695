"""Whether an object in the cluster is as a manifest says. Pure.

The API server adds defaults and writes quantities its own way, so that the two never are equal.
What counts is that all that the manifest says holds; what others added is theirs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from slotkeeper.api import quantity

Json = Any

_MERGE_KEYS = ("name", "mountPath", "uid")
"""By which a list's items are told apart, so that another's item among them is no difference."""

# The API server leaves these out where they are false, as Go's omitempty says. An absent field is
# a difference everywhere else: where a default is true, somebody who removes `false` changes it.
_FALSE_WHEN_ABSENT = {"publishNotReadyAddresses", "readOnly"}

_QUANTITIES = {"requests", "limits"}


@dataclass(frozen=True)
class Item:
    """A step into a list, to the item that is told apart by `key`."""

    key: str
    wanted: dict[str, Json]


Path = tuple[str | Item, ...]
"""A field's place in an object, from the outside in; the object itself is ()."""


def satisfies(wanted: Json, found: Json) -> bool:
    """Whether all that `wanted` says is so in `found`."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _field_holds(name, value, found) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and _list_holds(wanted, found)
    return bool(wanted == found)


def differences(wanted: Json, found: Json) -> Iterator[Path]:
    """The fields that `wanted` says and that are not so in `found`, as deep as both have them."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            if not _field_holds(name, value, found):
                whole = name in _QUANTITIES or name not in found
                inner: Iterable[Path] = [()] if whole else _inner(value, found[name])
                yield from ((name, *rest) for rest in inner)
    elif isinstance(wanted, list) and isinstance(found, list) and (key := _merge_key(wanted)):
        named = _named(found, key)
        for item in wanted:
            for rest in _inner(item, named.get(item[key])):
                yield (Item(key, item), *rest)
    elif not satisfies(wanted, found):
        yield ()


def field_path(path: Path) -> str:
    """A path for people: `spec.template.spec.containers[llama-server].image`."""
    return "".join(_path_step(step) for step in path).removeprefix(".")


def _inner(wanted: Json, found: Json) -> Iterable[Path]:
    return [()] if found is None else differences(wanted, found)


def _path_step(step: str | Item) -> str:
    if isinstance(step, Item):
        return f"[{step.wanted[step.key]}]"
    return f".{step}" if step.isalnum() else f"[{step}]"


def _field_holds(name: str, wanted: Json, found: dict[str, Json]) -> bool:
    if name not in found:
        return wanted is None or (name in _FALSE_WHEN_ABSENT and not wanted)
    if name in _QUANTITIES and isinstance(wanted, dict):
        return _quantities_hold(wanted, found[name])
    return satisfies(wanted, found[name])


def _quantities_hold(wanted: dict[str, Json], found: Json) -> bool:
    return isinstance(found, dict) and all(
        name in found and quantity.parse(amount) == quantity.parse(found[name])
        for name, amount in wanted.items()
    )


def _list_holds(wanted: list[Json], found: list[Json]) -> bool:
    if key := _merge_key(wanted):
        named = _named(found, key)
        return all(item[key] in named and satisfies(item, named[item[key]]) for item in wanted)
    return len(wanted) == len(found) and all(map(satisfies, wanted, found))


def _merge_key(wanted: list[Json]) -> str | None:
    for key in _MERGE_KEYS:
        if wanted and all(isinstance(item, dict) and key in item for item in wanted):
            return key
    return None


def _named(found: list[Json], key: str) -> dict[Json, Json]:
    return {item.get(key): item for item in found if isinstance(item, dict)}
