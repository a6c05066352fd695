"""A streaming request that is queued and gets SSE keep-alive comments."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from balancer_harness import Balancer, run_balancer
from fake_llama import FakeLlama
from raw_http import RawClient, post
from slotkeeper.scheduling import QueueLimits
from sse import Event, events

HEARTBEAT_SECONDS = 0.005
STREAM = json.dumps({"prompt": "hello", "stream": True}).encode()
COMMENT = b": queued, position %d\n\n"
TWO_EVENTS = [Event("", "first"), Event("", "last")]
"""What fake_llama.stream_two_events sends."""


@asynccontextmanager
async def queued_stream(
    llama: FakeLlama,
    body: bytes = STREAM,
    path: str = "/v1/chat/completions",
    *headers: str,
    queue_limits: QueueLimits | None = None,
) -> AsyncIterator[tuple[Balancer, RawClient]]:
    """Send a request that is queued behind another one, which has the only slot of `llama`.

    Its client has received two comments.
    """
    async with (
        run_balancer(
            llama, heartbeat_seconds=HEARTBEAT_SECONDS, queue_limits=queue_limits
        ) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post(path, body, *headers)) as client,
    ):
        await client.reader.readuntil(b"\r\n\r\n")
        await read_comments(client, 2)
        yield balancer, client


async def read_comments(client: RawClient, count: int) -> list[bytes]:
    prefix = COMMENT.partition(b"%")[0]
    comments = []
    for _ in range(count):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        comments.append((await client.reader.readexactly(size + 2))[:-2])
        assert comments[-1].startswith(prefix)
    return comments


async def read_events(client: RawClient) -> list[Event]:
    """Read the rest of the body."""
    body = b""
    while size := int(await client.reader.readuntil(b"\r\n"), 16):
        body += (await client.reader.readexactly(size + 2))[:-2]
    assert await client.reader.readexactly(2) == b"\r\n"
    return events(body)


async def serve(llama: FakeLlama, client: RawClient) -> list[Event]:
    """Let both requests proceed; return the events of the one that was queued."""
    await llama.proceed(0)
    await llama.proceed(1)
    return await read_events(client)
