"""Whether a request asks for a stream: `"stream": true` at the top level of its JSON."""

import asyncio
import json
import re

SMALL = 256 * 1024
"""Bytes of a body that is parsed at once, which takes a millisecond."""

_FLAG = re.compile(rb'"stream"[ \t\r\n]*:[ \t\r\n]*true')
_SLICE = 32 * 1024
_MARKS = 250
_MOST_MARKS = 200_000
_MARK = re.compile(rb'["{}\[\]]')
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_VALUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(true)?")


def wants_stream(body: bytes) -> bool:
    """Of a small body. What is no JSON asks for none: llama-server will say so."""
    if not _FLAG.search(body):
        return False
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(tree, dict) and tree.get("stream") is True


async def wants_stream_large(body: bytes) -> bool:
    """The same of a body of any size, in steps: nothing else stands still meanwhile.

    Python's parser would stop the loop also from a thread: it lets nobody run until it is done.
    A body of a great many small pieces is not worth the time: it asks for none.
    """
    asks = False
    depth = 0
    at = 0
    marks = 0
    while at < len(body) and marks < _MOST_MARKS:
        mark = _MARK.search(body, at, at + _SLICE)
        marks += 1
        if mark is None or marks % _MARKS == 0:
            await asyncio.sleep(0)
        if mark is None:
            at += _SLICE
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
                asks = value is not None and value[1] is not None
            at += 1
    return asks and marks < _MOST_MARKS


def _in_string(body: bytes, at: int) -> int:
    """Where the string goes on after another slice of it: at its closing quote, or short of it."""
    rest = _REST_OF_STRING.match(body, at, at + _SLICE)
    end = rest.end() if rest else at
    # No step at all: the string is empty, or the body ends in a backslash.
    return end if end > at or body[at : at + 1] == b'"' else len(body)
