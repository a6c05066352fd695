"""/healthz."""

import asyncio

import httpx
import pytest

from slotkeeper.reconcile.health import serve_health


@pytest.mark.parametrize(
    ("problem", "status", "body"), [(None, 200, "ok\n"), ("no rights", 503, "no rights\n")]
)
async def test_the_response_is_the_problem_at_that_moment(
    problem: str | None, status: int, body: str
) -> None:
    async with await serve_health(("127.0.0.1", 0), lambda: problem) as server:
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{port}/healthz")

    assert (response.status_code, response.text) == (status, body)


async def test_a_connection_without_a_request_is_closed() -> None:
    async with await serve_health(("127.0.0.1", 0), lambda: None) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write_eof()

        assert await reader.read() == b""
        writer.close()
