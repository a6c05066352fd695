"""What a request tells the fake llama-server to do: one header that no proxy changes."""

from dataclasses import dataclass

HEADER = b"x-job"


@dataclass(frozen=True, slots=True)
class Job:
    """How a request is answered.

    First `service_us` on the slot; then, with `tokens`, that many events `interval_us` apart, else
    one JSON answer. `session` is whose prompt it has (-1: nobody's).
    """

    number: int = 0
    service_us: int = 0
    tokens: int = 0
    interval_us: int = 0
    session: int = -1


def request(job: Job, body: bytes = b'{"prompt": "hello"}') -> bytes:
    """The bytes of a request."""
    return (
        b"POST /completion HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"X-Job: %d %d %d %d %d\r\nContent-Length: %d\r\n\r\n"
        % (
            job.number,
            job.service_us,
            job.tokens,
            job.interval_us,
            job.session,
            len(body),
        )
    ) + body


def header_in(head: bytes, name: bytes) -> bytes | None:
    """The value of the header `name` in `head`, both in lower case; None where it is not there."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


def job_in(head: bytes) -> Job:
    """The job in a request's head in lower case; where there is none, one that does nothing."""
    value = header_in(head, HEADER)
    return Job(*map(int, value.split())) if value else Job()
