"""Requests as they are sent to an external backend: their path, headers and model."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from slotkeeper.edge import model_field
from slotkeeper.edge.model_field import Replacement
from slotkeeper.edge.routes import display_path
from slotkeeper.gateway.target_config import Backend
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Header, Request, encode_request_head

_ROOT = b"/v1/"
_FORWARDED = frozenset((b"content-type", b"traceparent", b"tracestate", b"x-request-id"))
"""Those of a client that identify it, such as User-Agent and baggage, are not for others. Without
Accept-Encoding the token counts of a response can be read."""
_VIA = b"1.1 slotkeeper"
MAX_HOPS = 3
"""Gateways that a request may pass to a backend. Gateways that are backends, or fallbacks, of each
other would otherwise forward it until all their connections are in use."""


def check_hops(message: Request) -> None:
    """Raise HttpError with status 508 for a request that has passed too many gateways."""
    if _hops(message) >= MAX_HOPS:
        raise HttpError(
            508,
            "loop_detected",
            f"the request has passed {MAX_HOPS} gateways: their external backends form a loop",
        )


def _hops(message: Request) -> int:
    return sum(value.count(_VIA) for name, value in message.headers if name.lower() == b"via")


def check_path(message: Request, backend: Backend) -> None:
    """Raise HttpError with status 404 for a path that is llama-server's own."""
    if message.method != b"POST" or not message.path.startswith(_ROOT):
        raise HttpError(
            404,
            "path_not_supported",
            f"path {display_path(message.path)} is not supported by the external backend "
            f"{backend.name}: only POST requests for paths that begin with /v1/ are",
        )


def encode_head(message: Request, backend: Backend, key: bytes | None, size: int) -> bytes:
    """Encode the head of a request for a backend; `size`: of its body."""
    added: list[Header] = [
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"slotkeeper"),
        (b"Via", b", ".join([_VIA] * (_hops(message) + 1))),
    ]
    if key is not None:
        added.append((b"Authorization", b"Bearer " + key))
    target = backend.path.encode() + message.target[len(_ROOT) - 1 :]
    headers = [(name, value) for name, value in message.headers if name.lower() != b"host"]
    sent = replace(
        message,
        target=target,
        headers=[(b"Host", backend.authority.encode()), *headers],
        size=size,
    )
    return encode_request_head(sent, _FORWARDED, added)


async def with_model(
    message: Request, model: str, lock: asyncio.Lock
) -> tuple[Sequence[bytes], int]:
    """Return the parts and the size of a body that names `model`. Raises HttpError.

    `lock`: held while there is a copy of the body.
    """
    async with lock:
        change = await model_field.replacement(message, model)
    return changed(message.parts, change), message.size + len(change.data) - (
        change.end - change.start
    )


def changed(parts: Sequence[bytes], change: Replacement) -> list[bytes]:
    """Apply a change to a body in parts. Only parts within the change are copied."""
    result: list[bytes] = []
    start, end, data = change
    at = 0
    for part in parts:
        after = at + len(part)
        if after < start or at > end or (not data and (after <= start or at >= end)):
            result.append(part)
        else:
            before, rest = part[: max(0, start - at)], part[max(0, end - at) :]
            result += [each for each in (before, data, rest) if each]
            data = b""
        at = after
    return result
