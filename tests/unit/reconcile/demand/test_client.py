"""Balancers are asked over HTTP; whatever is no answer is an error that a look expects."""

import asyncio
import json
from contextlib import suppress
from typing import Self

import pytest

from operator_harness import numbers
from slotkeeper.reconcile.demand.client import open_client


class Balancer:
    """One that gives these answers, one for each request, and then no more."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.connections = 0
        self.asked: list[bytes] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError):
            while self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head.split()[1])
                writer.write(self._answers.pop(0))
                await writer.drain()
        writer.close()


def said(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def report(queued: int) -> bytes:
    return json.dumps(numbers(queued=queued)).encode()


async def test_what_a_balancer_says_is_read() -> None:
    async with Balancer(said(report(3))) as balancer, open_client() as ask:
        assert (await ask(balancer.address, keep_alive=True)).queued == 3


@pytest.mark.parametrize(("keep_alive", "connections"), [(True, 1), (False, 2)])
async def test_a_connection_is_kept_for_who_is_asked_again(
    keep_alive: bool, connections: int
) -> None:
    async with Balancer(said(report(1)), said(report(2))) as balancer, open_client() as ask:
        answers = [(await ask(balancer.address, keep_alive=keep_alive)).queued for _ in range(2)]

        assert (answers, balancer.connections) == ([1, 2], connections)


@pytest.mark.parametrize(
    ("keep_alive", "asked"),
    [(True, b"/autoscaling?scope=local&timeout=0.75"), (False, b"/autoscaling?scope=local")],
)
async def test_all_are_asked_for_their_own_numbers_and_who_is_asked_again_may_wait_for_a_request(
    keep_alive: bool, asked: bytes
) -> None:
    async with Balancer(said(report(1))) as balancer, open_client() as ask:
        await ask(balancer.address, keep_alive=keep_alive)

        assert balancer.asked == [asked]


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
    async with Balancer(answer) as balancer, open_client() as ask:
        with pytest.raises((OSError, ValueError)):
            await ask(balancer.address, keep_alive=True)


async def test_where_nobody_listens_is_an_error() -> None:
    async with Balancer() as gone:
        pass

    async with open_client() as ask:
        with pytest.raises(OSError, match="Cannot connect"):
            await ask(gone.address, keep_alive=True)
