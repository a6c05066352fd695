"""Which model a request is for: by its path, else by the header X-Model, else by its body."""

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from slotkeeper.edge import model_field
from slotkeeper.edge.request_body import SMALL
from slotkeeper.edge.routes import MODEL_PATH, PROXIED, READ_PATHS
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

PREFIX = b"/models/"
"""Followed by the name of a model and a path."""

_SERVED = PROXIED | READ_PATHS


class PrefixedPath(NamedTuple):
    """A path that names a model."""

    model: str
    path: bytes
    """The path that is forwarded."""


def prefixed_path(path: bytes) -> PrefixedPath | None:
    """Split `/models/NAME/PATH`; None if the path has another form.

    NAME may contain slashes, as the names of many models do, and may be percent-encoded.
    """
    if not path.startswith(PREFIX):
        return None
    first = path.find(b"/", len(PREFIX))
    if first in {-1, len(PREFIX)}:
        return None
    # The longest rest counts. To try each slash takes milliseconds for a path that is full of them.
    ends = [len(path) - len(each) for each in _SERVED if path.endswith(each)]
    ends.append(path.find(MODEL_PATH, first))
    at = min((each for each in ends if each >= first), default=0)
    if not at:
        return None
    name = unquote_to_bytes(path[len(PREFIX) : at])
    return PrefixedPath(name.decode(errors="replace"), path[at:])


def with_path(request: Request, path: bytes) -> None:
    """Replace a request's path, and keep its query."""
    _, mark, query = request.target.partition(b"?")
    request.target = path + mark + query


def model_in_header(request: Request) -> str | None:
    """Return the model in X-Model; None without one. Raises HttpError if there are several."""
    values = {
        value for name, value in request.headers if len(name) == 7 and name.lower() == b"x-model"
    }
    if len(values) > 1:
        raise HttpError(400, "ambiguous_model", "several X-Model headers: send one")
    value = next(iter(values), b"")
    return value.decode(errors="replace") or None


def is_quick(request: Request) -> bool:
    """Whether `model_in_small_body` can read the request's body."""
    return request.size <= SMALL and not model_field.is_form(request)


def model_in_small_body(request: Request) -> str | None:
    """Return the model that a small body of JSON names. Raises HttpError."""
    return model_field.model_in_small_json(request.body) if request.size else None


async def model_in_body(request: Request) -> str | None:
    """Return the model that any body names, found in steps which yield to the loop.

    Raises HttpError.
    """
    if model_field.is_form(request):
        content_type = request.header(b"content-type") or b""
        return await model_field.model_in_form(content_type, request.body)
    return await model_field.model_in_json(request.body)
