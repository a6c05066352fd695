"""The paths of Ollama's API."""

from enum import Enum

from slotkeeper.edge.error_format import OLLAMA_PREFIX
from slotkeeper.edge.routes import display_path
from slotkeeper.wire.errors import HttpError


class Endpoint(Enum):
    """What a path does."""

    VERSION = "the version of the API"
    TAGS = "all models"
    PS = "the loaded models"
    SHOW = "one model"
    CHAT = "a chat"
    GENERATE = "a text"
    EMBED = "several embeddings"
    EMBEDDINGS = "one embedding"
    PREFLIGHT = "CORS preflight of a browser"


_GET = {b"version": Endpoint.VERSION, b"tags": Endpoint.TAGS, b"ps": Endpoint.PS}
_POST = {
    b"show": Endpoint.SHOW,
    b"chat": Endpoint.CHAT,
    b"generate": Endpoint.GENERATE,
    b"embed": Endpoint.EMBED,
    b"embeddings": Endpoint.EMBEDDINGS,
}
PATHS = tuple(OLLAMA_PREFIX + name for name in (*_GET, *_POST))
"""All paths that are served."""
_ADMINISTRATION = frozenset((b"pull", b"push", b"create", b"copy", b"delete", b"blobs"))


def endpoint_of(method: bytes, path: bytes) -> Endpoint:
    """Return what a request is for. Raises HttpError with 404, 405 or 501."""
    name = path.removeprefix(OLLAMA_PREFIX)
    if name.partition(b"/")[0] in _ADMINISTRATION:
        raise HttpError(
            501,
            "not_supported",
            "models cannot be added or removed by this API: each is a LlamaServer, see kubectl get "
            "llamaservers",
        )
    found = _GET.get(name) or _POST.get(name)
    if found is None:
        raise HttpError(404, "not_found", f"path {display_path(path)} not found")
    if method == b"OPTIONS":
        return Endpoint.PREFLIGHT
    reads = name in _GET
    if method not in ({b"GET", b"HEAD"} if reads else {b"POST"}):
        allowed = "GET" if reads else "POST"
        raise HttpError(
            405,
            "method_not_allowed",
            f"method not allowed on {display_path(path)}, expected {allowed}",
            headers=[(b"Allow", b"GET, HEAD, OPTIONS" if reads else b"POST, OPTIONS")],
        )
    return found
