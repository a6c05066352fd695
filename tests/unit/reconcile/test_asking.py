"""Balancers are asked over HTTP; whatever is no answer is an error that a look expects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from slotkeeper.reconcile.asking import asking


@asynccontextmanager
async def balancer(*answers: bytes) -> AsyncIterator[str]:
    """One that gives these answers, one for each request, and then no more; its address."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def said(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def test_what_a_balancer_says_is_read() -> None:
    async with balancer(said(b'{"waiting": 3}')) as address, asking() as ask:
        assert await ask(address) == {"waiting": 3}


async def test_the_next_look_takes_the_same_connection() -> None:
    async with balancer(said(b"1"), said(b"2")) as address, asking() as ask:
        assert [await ask(address), await ask(address)] == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(said(b"{}", status="503 Service Unavailable"), id="an error"),
        pytest.param(said(b"{", status="200 OK"), id="half of a JSON"),
        pytest.param(said(b"<p>", content_type="text/html"), id="a page"),
        pytest.param(b"what?\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", id="cut"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    async with balancer(answer) as address, asking() as ask:
        with pytest.raises((OSError, ValueError)):
            await ask(address)


async def test_where_nobody_listens_is_an_error() -> None:
    async with balancer() as address:
        pass

    async with asking() as ask:
        with pytest.raises(OSError, match="Cannot connect"):
            await ask(address)
