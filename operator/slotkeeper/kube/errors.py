"""What an API server's answer, or its silence, is as an ApiError. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from slotkeeper.kube.cluster import ApiError, Conflict, Gone, NotFound, Unreachable

_ERRORS = {404: NotFound, 409: Conflict, 410: Gone}


def error_from_response(status: int, body: bytes) -> ApiError:
    """The error of an answer, whether it is JSON or not."""
    try:
        said = json.loads(body)
    except ValueError:
        said = {"message": body.decode(errors="replace").strip()}
    return api_error(status, said if isinstance(said, dict) else {})


def api_error(status: int, said: Mapping[str, Any]) -> ApiError:
    """The error that a Kubernetes Status says."""
    message = said.get("message") or f"the API server answered {status}"
    return _ERRORS.get(status, ApiError)(status, said.get("reason") or "Unknown", message)


def unreachable(method: str, path: str, error: Exception) -> Unreachable:
    """The error of a request that got no answer, or not all of it."""
    return Unreachable(0, "Unreachable", f"{method} {path}: {str(error) or type(error).__name__}")
