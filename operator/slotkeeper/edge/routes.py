"""What is passed on to a llama-server, what the balancer answers itself, and nothing else."""

from collections.abc import Container
from enum import Enum

from slotkeeper.wire.errors import Refusal


class Route(Enum):
    """What happens with a request."""

    DECODE = "passed on; takes a slot in llama-server"
    LIGHT = "passed on; llama-server needs no slot for it"
    HEALTH = "health"
    MODELS = "models"
    SLOTS = "slots"
    PROPS = "props"
    METRICS = "metrics"
    PREFLIGHT = "a browser asks what a web page may send"


# Light ones too stand in the queue and hold one of our slots: then they are bounded like all
# others, at the price that under load a /tokenize waits its turn.
_POST = {
    b"/completion": Route.DECODE,
    b"/completions": Route.DECODE,
    b"/v1/completions": Route.DECODE,
    b"/chat/completions": Route.DECODE,
    b"/v1/chat/completions": Route.DECODE,
    b"/v1/responses": Route.DECODE,
    b"/responses": Route.DECODE,
    b"/v1/messages": Route.DECODE,
    b"/audio/transcriptions": Route.DECODE,
    b"/v1/audio/transcriptions": Route.DECODE,
    b"/infill": Route.DECODE,
    b"/embedding": Route.DECODE,
    b"/embeddings": Route.DECODE,
    b"/v1/embeddings": Route.DECODE,
    b"/rerank": Route.DECODE,
    b"/reranking": Route.DECODE,
    b"/v1/rerank": Route.DECODE,
    b"/v1/reranking": Route.DECODE,
    b"/tokenize": Route.LIGHT,
    b"/detokenize": Route.LIGHT,
    b"/apply-template": Route.LIGHT,
    b"/v1/messages/count_tokens": Route.LIGHT,
    b"/chat/completions/input_tokens": Route.LIGHT,
    b"/v1/chat/completions/input_tokens": Route.LIGHT,
    b"/responses/input_tokens": Route.LIGHT,
    b"/v1/responses/input_tokens": Route.LIGHT,
}

OWN = frozenset((Route.HEALTH, Route.MODELS, Route.SLOTS, Route.PROPS, Route.METRICS))
"""What the balancer answers itself."""

PASSED_ON = frozenset(_POST)
"""All paths that can be passed on."""

KEEPS_PROMPT = frozenset(
    path
    for path, way in _POST.items()
    if way is Route.DECODE and not any(part in path for part in (b"embedding", b"rerank", b"audio"))
)
"""Paths whose prompts llama-server keeps in its cache for those that begin alike."""

STREAMS = KEEPS_PROMPT
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


def route(method: bytes, path: bytes, served: Container[bytes] = PASSED_ON) -> Route:
    """What happens with `method` on `path`, where `served` are the paths that are passed on.

    Raises Refusal with 404 or 405. Paths are compared as they came: /%63ompletion is not served,
    and so is no administrative route under whatever spelling.
    """
    if path in _POST and path not in served:
        raise Refusal(404, "route_disabled", f"{path.decode()} is switched off on this server")
    if method == b"OPTIONS" and (path in _GET or path in _POST):
        return Route.PREFLIGHT
    table = _GET if method in {b"GET", b"HEAD"} else _POST if method == b"POST" else {}
    found = table.get(path)
    if found:
        return found
    name = shown(path)
    if path in _GET or path in _POST:
        allowed = "GET" if path in _GET else "POST"
        raise Refusal(
            405,
            "method_not_allowed",
            f"{name} takes {allowed} here",
            headers=[(b"Allow", _ALLOWED[allowed])],
        )
    raise Refusal(404, "not_found", f"{name} is not served here")


def shown(path: bytes) -> str:
    """A path for people. One may be as long as a head: its beginning tells enough of it."""
    text = path[:_MOST_SHOWN].decode("ascii", "replace")
    return text if len(path) <= _MOST_SHOWN else f"{text}…"


def public(method: bytes, path: bytes) -> bool:
    """Whether that needs no API key, as with llama-server. Preflights never carry one."""
    if method in {b"GET", b"HEAD"}:
        return _GET.get(path) in _PUBLIC
    return method == b"OPTIONS"
