"""Send the requests of a trace: `python -m bench.autoscale.live_load URL < trace.csv`.

Runs inside the cluster's network. A request's service time is set by its number of tokens, at a
fixed rate of tokens per second.
"""

import asyncio
import sys
import time

import httpx

from slotkeeper.simulation.trace import TraceRequest, read

TOKENS_PER_SECOND = 100


async def main(url: str) -> int:
    """Send all requests; return how many failed."""
    requests = read(sys.stdin)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=900, limits=limits) as client:
        began = time.monotonic()
        succeeded = await asyncio.gather(*(_send(client, each, began) for each in requests))
    return succeeded.count(False)


async def _send(client: httpx.AsyncClient, request: TraceRequest, began: float) -> bool:
    await asyncio.sleep(max(began + request.at - time.monotonic(), 0))
    body = {
        "messages": [{"role": "user", "content": f"at {request.at}"}],
        "max_tokens": max(round(request.service_seconds * TOKENS_PER_SECOND), 1),
        # llama.cpp's own field: without it a model with random weights ends at any token.
        "ignore_eos": True,
    }
    try:
        return (await client.post("/v1/chat/completions", json=body)).is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
