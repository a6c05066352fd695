"""HTTP requests to pods, whose responses may be anything."""

import aiohttp

from slotkeeper.error_text import describe


def session(connector: aiohttp.TCPConnector, seconds: float) -> aiohttp.ClientSession:
    """Return a client with this timeout for a whole request.

    HTTP_PROXY and the like are ignored: pods are not reached through a proxy.
    """
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=seconds),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def get(client: aiohttp.ClientSession, url: str, max_bytes: int) -> bytes:
    """Return the body of a response with status 200, or as much of it as shows that it is longer
    than `max_bytes`. Raises OSError."""
    try:
        # A redirect could lead the operator to any address that it can reach.
        async with client.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise OSError(f"response with status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    response.close()
                    break
            return bytes(body)
    except aiohttp.ClientError as error:
        raise OSError(describe(error)) from error
