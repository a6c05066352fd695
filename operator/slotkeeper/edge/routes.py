"""What is passed on to a llama-server, what the balancer answers itself, and nothing else."""

from collections.abc import Container
from enum import Enum

from slotkeeper.api import paths
from slotkeeper.api.paths import Cost
from slotkeeper.wire.errors import HttpError


class Route(Enum):
    """What happens with a request."""

    INFERENCE = "passed on; takes a slot in llama-server"
    PASSTHROUGH = "passed on; llama-server needs no slot for it"
    HEALTH = "health"
    MODELS = "models"
    SLOTS = "slots"
    PROPS = "props"
    METRICS = "metrics"
    PREFLIGHT = "a browser asks what a web page may send"


# Light ones too stand in the queue and hold one of our slots: then they are bounded like all
# others, at the price that under load a /tokenize waits its turn.
_POST = {
    path.encode(): Route.PASSTHROUGH if cost is Cost.NONE else Route.INFERENCE
    for path, cost in paths.PROXIED.items()
}

LOCAL = frozenset((Route.HEALTH, Route.MODELS, Route.SLOTS, Route.PROPS, Route.METRICS))
"""What the balancer answers itself."""

PROXIED = frozenset(_POST)
"""All paths that can be passed on."""

PREFIX_CACHED = frozenset(
    path.encode() for path, cost in paths.PROXIED.items() if cost is Cost.GENERATION
)
"""Paths whose prompts llama-server keeps in its cache for those that begin alike."""

STREAMABLE = PREFIX_CACHED
"""Paths whose answers may be streams: those that generate, which are the same."""

_GET = {
    b"/health": Route.HEALTH,
    b"/v1/health": Route.HEALTH,
    b"/models": Route.MODELS,
    b"/v1/models": Route.MODELS,
    b"/slots": Route.SLOTS,
    b"/props": Route.PROPS,
    b"/metrics": Route.METRICS,
}


_PUBLIC = frozenset((Route.HEALTH, Route.MODELS))
_ALLOWED = {"GET": b"GET, HEAD, OPTIONS", "POST": b"POST, OPTIONS"}
_MOST_SHOWN = 200


def route(method: bytes, path: bytes, served: Container[bytes] = PROXIED) -> Route:
    """What happens with `method` on `path`, where `served` are the paths that are passed on.

    Raises Refusal with 404 or 405. Paths are compared as they came: /%63ompletion is not served,
    and so is no administrative route under whatever spelling.
    """
    if path in _POST and path not in served:
        raise HttpError(404, "path_not_allowed", f"{path.decode()} is switched off on this server")
    if method == b"OPTIONS" and (path in _GET or path in _POST):
        return Route.PREFLIGHT
    table = _GET if method in {b"GET", b"HEAD"} else _POST if method == b"POST" else {}
    found = table.get(path)
    if found:
        return found
    name = display_path(path)
    if path in _GET or path in _POST:
        allowed = "GET" if path in _GET else "POST"
        raise HttpError(
            405,
            "method_not_allowed",
            f"{name} takes {allowed} here",
            headers=[(b"Allow", _ALLOWED[allowed])],
        )
    raise HttpError(404, "not_found", f"{name} is not served here")


def display_path(path: bytes) -> str:
    """A path for people. One may be as long as a head: its beginning tells enough of it."""
    text = path[:_MOST_SHOWN].decode("ascii", "replace")
    return text if len(path) <= _MOST_SHOWN else f"{text}…"


def is_public(method: bytes, path: bytes) -> bool:
    """Whether that needs no API key, as with llama-server. Preflights never carry one."""
    if method in {b"GET", b"HEAD"}:
        return _GET.get(path) in _PUBLIC
    return method == b"OPTIONS"
