"""Whether a request is for a stream: `"stream": true` at the top level of its JSON."""

import json
import re

from slotkeeper.edge.top_level import TooManyValues, top_level_values

SMALL = 256 * 1024
"""Bytes of a body that is parsed in one step, which takes a millisecond."""

_FLAG = re.compile(rb'"stream"[ \t\r\n]*:[ \t\r\n]*true')


def wants_stream(body: bytes) -> bool:
    """Whether a small body requests a stream. Invalid JSON does not: llama-server rejects it."""
    if not _FLAG.search(body):
        return False
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(tree, dict) and tree.get("stream") is True


async def wants_stream_large(body: bytes) -> bool:
    """Whether a body of any size requests a stream; scanned in steps, which yield to the loop.

    A body of very many small JSON values would take too long, and counts as requesting no stream.
    """
    try:
        return (await top_level_values(body, ("stream",))).get("stream") is True
    except TooManyValues:
        return False
