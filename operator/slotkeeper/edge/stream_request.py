"""Whether a request is for a stream: `"stream": true` at the top level of its JSON."""

import asyncio
import json
import re

SMALL = 256 * 1024
"""Bytes of a body that is parsed in one step, which takes a millisecond."""

_FLAG = re.compile(rb'"stream"[ \t\r\n]*:[ \t\r\n]*true')
_STEP_BYTES = 32 * 1024
_MARKS_PER_STEP = 250
_MAX_MARKS = 200_000
_MARK = re.compile(rb'["{}\[\]]')
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_VALUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(true)?")


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

    Python's parser would block the loop from a thread too: it holds the GIL until it is done. A
    body of very many small JSON values would take too long, and counts as requesting no stream.
    """
    streams = False
    depth = 0
    at = 0
    marks = 0
    while at < len(body) and marks < _MAX_MARKS:
        mark = _MARK.search(body, at, at + _STEP_BYTES)
        marks += 1
        if mark is None or marks % _MARKS_PER_STEP == 0:
            await asyncio.sleep(0)
        if mark is None:
            at += _STEP_BYTES
        elif mark[0] != b'"':
            depth += 1 if mark[0] in b"{[" else -1
            at = mark.end()
        else:
            begin = mark.end()
            at = _in_string(body, begin)
            while body[at : at + 1] not in {b'"', b""}:
                await asyncio.sleep(0)
                at = _in_string(body, at)
            if depth == 1 and body[begin:at] == b"stream":
                value = _VALUE.match(body, at + 1)
                streams = value is not None and value[1] is not None
            at += 1
    return streams and marks < _MAX_MARKS


def _in_string(body: bytes, at: int) -> int:
    """Return where a string continues after one more step, at most at its closing quote."""
    rest = _REST_OF_STRING.match(body, at, at + _STEP_BYTES)
    end = rest.end() if rest else at
    # No progress: the string is empty, or the body ends in a backslash.
    return end if end > at or body[at : at + 1] == b'"' else len(body)
