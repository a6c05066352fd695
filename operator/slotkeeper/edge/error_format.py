"""The format of an error response: that of the API to which the request's path belongs."""

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Response

OLLAMA_PREFIX = b"/api/"
"""Beginning of the paths of Ollama's API, which a gateway serves."""
_ANTHROPIC_ENDS = (b"/v1/messages", b"/v1/messages/count_tokens")

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_response(error: HttpError, path: bytes) -> Response:
    """Return the error response for a request to this path."""
    return error.response(error_tree(error, path))


def error_tree(error: HttpError, path: bytes) -> object | None:
    """Return the body of an error response as a JSON tree; None: it is in OpenAI's format."""
    if is_anthropic(path):
        kind = _ANTHROPIC_TYPES.get(error.status) or (
            "invalid_request_error" if error.status < 500 else "api_error"
        )
        described = {"type": kind, "message": error.message, "code": error.code}
        return {"type": "error", "error": described}
    if path.startswith(OLLAMA_PREFIX):
        return {"error": error.message}
    return None


def is_anthropic(path: bytes) -> bool:
    """Whether a path belongs to Anthropic's API; it may have a prefix that names a model."""
    return path.endswith(_ANTHROPIC_ENDS)
