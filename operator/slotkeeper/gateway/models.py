"""The models of a gateway: what its LlamaServers serve, and in which state they are. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from slotkeeper.api.model_state import ModelState, state_of
from slotkeeper.gateway.config import Selector
from slotkeeper.kube.cluster import UNREADABLE, Manifest

_MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class Model:
    """One model, and the server that serves it."""

    name: str
    server: str
    """Name of the LlamaServer."""
    uid: str
    generation: int
    created: int
    """Time of the server's creation, in seconds since 1970."""
    state: ModelState
    message: str = ""
    """Details of the state, for people; empty if it needs none."""


@dataclass(frozen=True, slots=True)
class NameConflict:
    """A server whose model has the name of an older server's, and is therefore not served."""

    name: str
    server: str
    used: str
    """Name of the older server."""


def model_of(server: Manifest) -> Model | None:
    """Return the model of a LlamaServer; None if it is being deleted or cannot be read."""
    metadata = _object(server.get("metadata"))
    name, uid = metadata.get("name"), metadata.get("uid")
    if UNREADABLE in server or metadata.get("deletionTimestamp"):
        return None
    if not (isinstance(name, str) and isinstance(uid, str)):
        return None
    spec = _object(server.get("spec"))
    alias = _object(spec.get("model")).get("alias")
    generation = metadata.get("generation")
    state, message = state_of(spec, _object(server.get("status")))
    return Model(
        name=alias if isinstance(alias, str) and 0 < len(alias) <= _MAX_NAME else name,
        server=name,
        uid=uid,
        generation=generation if isinstance(generation, int) else 0,
        created=_seconds(metadata.get("creationTimestamp")),
        state=state,
        message=message,
    )


def is_selected(server: Manifest, selector: Selector) -> bool:
    """Whether the selector matches the server's labels."""
    return selector.matches(_object(_object(server.get("metadata")).get("labels")))


def by_name(models: Iterable[Model]) -> tuple[dict[str, Model], list[NameConflict]]:
    """Return the models by name, in order. Of several servers with one name the oldest counts."""
    found: dict[str, Model] = {}
    conflicts = []
    for model in sorted(models, key=lambda each: (each.name, each.created, each.server)):
        used = found.setdefault(model.name, model)
        if used is not model:
            conflicts.append(NameConflict(model.name, model.server, used.server))
    return found, conflicts


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> int:
    try:
        return int(datetime.fromisoformat(value).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0
