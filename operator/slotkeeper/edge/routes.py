"""Routing: paths forwarded to llama-server, paths served by the balancer itself, and no others."""

from collections.abc import Container
from enum import Enum

from slotkeeper.api import paths
from slotkeeper.api.paths import Cost
from slotkeeper.wire.errors import HttpError


class Route(Enum):
    """How a request is handled."""

    INFERENCE = "forwarded; needs a slot in llama-server"
    PASSTHROUGH = "forwarded; needs no slot in llama-server"
    HEALTH = "health"
    MODELS = "models"
    MODEL = "one of the models"
    SLOTS = "slots"
    PROPS = "props"
    METRICS = "metrics"
    PREFLIGHT = "CORS preflight of a browser"


# PASSTHROUGH requests are queued and reserve a slot too. They are then limited like all others, at
# the price that under load a /tokenize is queued.
_POST = {
    path.encode(): Route.PASSTHROUGH if cost is Cost.NONE else Route.INFERENCE
    for path, cost in paths.PROXIED.items()
}

LOCAL = frozenset(
    (Route.HEALTH, Route.MODELS, Route.MODEL, Route.SLOTS, Route.PROPS, Route.METRICS)
)
"""Routes that the balancer serves itself."""

PROXIED = frozenset(_POST)
"""All paths that can be forwarded."""

PREFIX_CACHED = frozenset(
    path.encode() for path, cost in paths.PROXIED.items() if cost is Cost.GENERATION
)
"""Paths whose prompts llama-server keeps in its prefix cache."""

BOUNDED_BY_CONTEXT = frozenset(
    path.encode()
    for path, cost in paths.PROXIED.items()
    # llama-server shortens an infill prompt itself, and transcriptions are audio.
    if cost is not Cost.NONE and path != "/infill" and "audio" not in path
)
"""Paths whose prompts must fit into the context."""

STREAMABLE = PREFIX_CACHED
"""Paths whose responses may be streams: those that generate, which are the same."""

_GET = {
    b"/health": Route.HEALTH,
    b"/v1/health": Route.HEALTH,
    b"/models": Route.MODELS,
    b"/v1/models": Route.MODELS,
    b"/slots": Route.SLOTS,
    b"/props": Route.PROPS,
    b"/metrics": Route.METRICS,
}


READ_PATHS = frozenset(_GET)
"""Paths of GET requests, apart from those of single models."""

MODEL_PATH = b"/v1/models/"
"""Followed by the name of a model."""

_PUBLIC = frozenset((Route.HEALTH, Route.MODELS, Route.MODEL))
_ALLOWED = {"GET": b"GET, HEAD, OPTIONS", "POST": b"POST, OPTIONS"}
_MAX_DISPLAYED = 200


def route(method: bytes, path: bytes, served: Container[bytes] = PROXIED) -> Route:
    """Return the route of `method` on `path`; `served` are the paths that are forwarded.

    Raises HttpError with 404 or 405. Paths are compared as sent, without decoding: /%63ompletion is
    not found, and neither is an administrative path in any spelling.
    """
    if path in _POST and path not in served:
        raise HttpError(
            404, "path_not_allowed", f"path {path.decode()} is not allowed on this server"
        )
    read = _get_route(path)
    if method == b"OPTIONS" and (read or path in _POST):
        return Route.PREFLIGHT
    if method in {b"GET", b"HEAD"} and read:
        return read
    if method == b"POST" and path in _POST:
        return _POST[path]
    name = display_path(path)
    if read or path in _POST:
        allowed = "GET" if read else "POST"
        raise HttpError(
            405,
            "method_not_allowed",
            f"method not allowed on {name}, expected {allowed}",
            headers=[(b"Allow", _ALLOWED[allowed])],
        )
    raise HttpError(404, "not_found", f"path {name} not found")


def display_path(path: bytes) -> str:
    """Return a path as text, truncated to 200 characters: it may be as long as a whole head."""
    text = path[:_MAX_DISPLAYED].decode("ascii", "replace")
    return text if len(path) <= _MAX_DISPLAYED else f"{text}…"


def is_public(method: bytes, path: bytes) -> bool:
    """Whether a request needs no API key, as in llama-server. Preflights never carry a key."""
    if method in {b"GET", b"HEAD"}:
        return _get_route(path) in _PUBLIC
    return method == b"OPTIONS"


def _get_route(path: bytes) -> Route | None:
    route = _GET.get(path)
    if route is None and path.startswith(MODEL_PATH) and len(path) > len(MODEL_PATH):
        return Route.MODEL
    return route
