"""Instructions to the fake llama-server, in a request header, and at the end of the body.

The latter for proxies that forward no such header.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass

HEADER = b"x-job"
MODEL = "fake"
"""Name of the model in chat completions."""

_IN_BODY = re.compile(rb'job ([-0-9 ]+)"')


@dataclass(frozen=True, slots=True)
class Job:
    """How the fake serves a request.

    It uses the slot for `service_us`, then sends `tokens` events with `interval_us` between them,
    or one JSON response if `tokens` is 0. `session` identifies the prompt (-1: a unique prompt).
    """

    number: int = 0
    service_us: int = 0
    tokens: int = 0
    interval_us: int = 0
    session: int = -1


def request(job: Job, body: bytes = b'{"prompt": "hello"}', headers: Sequence[str] = ()) -> bytes:
    """Encode a request with these further headers, and the job at the end of the body."""
    numbers = _numbers(job)
    if body.endswith(b"}"):
        body = body[:-1] + b', "job": "job %s"}' % numbers.encode()
    else:
        body += b'job %s"' % numbers.encode()
    lines = (
        "POST /completion HTTP/1.1",
        "Host: bench",
        "Content-Type: application/json",
        f"X-Job: {numbers}",
        *headers,
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def chat_request(job: Job, headers: Sequence[str] = (), size: int = 0) -> bytes:
    """Encode a chat completion with these further headers, and `size` bytes of text.

    The model stands at the end of the body, where OpenAI's Python client writes it.
    """
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": f"{'x' * size}job {_numbers(job)}"}],
            "stream": job.tokens > 0,
            "model": MODEL,
        }
    ).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: bench",
        "Content-Type: application/json",
        f"X-Job: {_numbers(job)}",
        *headers,
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def job_in_body(body: bytes) -> Job:
    """Parse the job in the body of a `chat_request`; default: an empty job."""
    found = _IN_BODY.search(body)
    return Job(*map(int, found[1].split())) if found else Job()


def _numbers(job: Job) -> str:
    return " ".join(map(str, astuple(job)))


def header_in(head: bytes, name: bytes) -> bytes | None:
    """Return the value of header `name` in `head`, None if it is absent; both in lower case."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


def job_in(head: bytes) -> Job:
    """Parse the job of a request's head, which is in lower case; default: an empty job."""
    value = header_in(head, HEADER)
    return Job(*map(int, value.split())) if value else Job()
