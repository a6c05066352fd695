"""One attempt to execute a request: it is sent as a stream, and its response is made complete."""

import json
from typing import NamedTuple

from slotkeeper.batches.assemble import as_stream, assemble
from slotkeeper.batches.client import (
    GatewayClient,
    Interrupted,
    Reply,
    ResponsesFull,
    ResponseTooLarge,
)
from slotkeeper.batches.disk import Disk
from slotkeeper.batches.lines import Line
from slotkeeper.batches.verdict import Verdict, verdict
from slotkeeper.error_text import describe


class Attempt(NamedTuple):
    """What came of it."""

    verdict: Verdict
    reply: Reply | None = None
    """The complete response; None without one."""
    code: str = ""
    """Of the error, without a response."""
    failure: str = ""
    """Its message."""
    interrupted: bool = False
    """The stream was closed after it had begun."""


async def attempt(
    client: GatewayClient, disk: Disk, endpoint: str, line: Line, secret: bytes | None
) -> Attempt:
    """Send a request, with the API key `secret`."""
    body = json.dumps(as_stream(endpoint, line.body), separators=(",", ":")).encode()
    try:
        reply = await client.post(endpoint, body, secret)
        reply = await disk.in_thread(assemble, endpoint, reply)
    except ResponseTooLarge as error:
        return Attempt(Verdict.REJECTED, None, "response_too_large", str(error))
    except ResponsesFull:
        return Attempt(Verdict.THROTTLED)
    except Interrupted:
        # A balancer closes a stream that yields. If llama-server has crashed, the balancer rejects
        # the request from then on.
        return Attempt(Verdict.PREEMPTED, interrupted=True)
    except OSError as error:
        return Attempt(Verdict.FAILED, None, "request_failed", describe(error))
    return Attempt(verdict(reply.status, reply.body), reply)
