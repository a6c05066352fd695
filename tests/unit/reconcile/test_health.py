"""/healthz."""

import asyncio

import httpx
import pytest

from slotkeeper.reconcile.health import serve_health


@pytest.mark.parametrize(("healthy", "status"), [(True, 200), (False, 503)])
async def test_the_response_is_the_health_at_that_moment(*, healthy: bool, status: int) -> None:
    async with await serve_health(("127.0.0.1", 0), lambda: healthy) as server:
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{port}/healthz")

    assert response.status_code == status


async def test_a_connection_without_a_request_is_closed() -> None:
    async with await serve_health(("127.0.0.1", 0), lambda: True) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write_eof()

        assert await reader.read() == b""
        writer.close()
