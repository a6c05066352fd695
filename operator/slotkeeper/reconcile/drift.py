"""Whether an object in the cluster is as a manifest says. Pure.

The API server adds defaults and writes quantities its own way, so that the two never are equal.
What counts is that all that the manifest says holds; what others added is theirs.
"""

from typing import Any

from slotkeeper.api import quantity

Json = Any

_MERGE_KEYS = ("name", "mountPath", "uid")
"""By which a list's items are told apart, so that another's item among them is no difference."""

# The API server leaves these out where they are false, as Go's omitempty says. An absent field is
# a difference everywhere else: where a default is true, somebody who removes `false` changes it.
_FALSE_WHEN_ABSENT = {"publishNotReadyAddresses", "readOnly"}

_QUANTITIES = {"requests", "limits"}


def holds(wanted: Json, found: Json) -> bool:
    """Whether all that `wanted` says is so in `found`."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _field_holds(name, value, found) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and _list_holds(wanted, found)
    return bool(wanted == found)


def _field_holds(name: str, wanted: Json, found: dict[str, Json]) -> bool:
    if name not in found:
        return wanted is None or (name in _FALSE_WHEN_ABSENT and not wanted)
    if name in _QUANTITIES and isinstance(wanted, dict):
        return _quantities_hold(wanted, found[name])
    return holds(wanted, found[name])


def _quantities_hold(wanted: dict[str, Json], found: Json) -> bool:
    return isinstance(found, dict) and all(
        name in found and quantity.parse(amount) == quantity.parse(found[name])
        for name, amount in wanted.items()
    )


def _list_holds(wanted: list[Json], found: list[Json]) -> bool:
    for key in _MERGE_KEYS:
        if wanted and all(isinstance(item, dict) and key in item for item in wanted):
            named = {item.get(key): item for item in found if isinstance(item, dict)}
            return all(item[key] in named and holds(item, named[item[key]]) for item in wanted)
    return len(wanted) == len(found) and all(map(holds, wanted, found))
