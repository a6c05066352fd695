"""What is passed on to a llama-server, what the balancer answers itself, and nothing else."""

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
}

KEEPS_PROMPT = frozenset(
    path
    for path, way in _POST.items()
    if way is Route.DECODE and b"embedding" not in path and b"rerank" not in path
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


def route(method: bytes, path: bytes) -> Route:
    """What happens with `method` on `path`. Raises Refusal with 404 or 405.

    Paths are compared as they came: /%63ompletion is not served, and so is no administrative
    route under whatever spelling.
    """
    table = _GET if method in {b"GET", b"HEAD"} else _POST if method == b"POST" else {}
    found = table.get(path)
    if found:
        return found
    name = path.decode("ascii", "replace")
    if path in _GET or path in _POST:
        allowed = "GET" if path in _GET else "POST"
        raise Refusal(405, "method_not_allowed", f"{name} takes {allowed} here")
    raise Refusal(404, "not_found", f"{name} is not served here")
