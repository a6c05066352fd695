"""Send requests as a trace says: `python -m bench.autoscale.live_load URL < trace.csv`.

Runs inside of the cluster's network. A call's seconds are asked for as tokens, so many a second.
"""

import asyncio
import sys
import time

import httpx

from slotkeeper.simulation.trace import TraceRequest, read

TOKENS_A_SECOND = 100


async def main(url: str) -> int:
    """Send all; how many were not answered."""
    calls = read(sys.stdin)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=900, limits=limits) as client:
        began = time.monotonic()
        answered = await asyncio.gather(*(_send(client, call, began) for call in calls))
    return answered.count(False)


async def _send(client: httpx.AsyncClient, call: TraceRequest, began: float) -> bool:
    await asyncio.sleep(max(began + call.at - time.monotonic(), 0))
    body = {
        "messages": [{"role": "user", "content": f"at {call.at}"}],
        "max_tokens": max(round(call.seconds * TOKENS_A_SECOND), 1),
        # llama.cpp's own field: without it a random model ends when it pleases.
        "ignore_eos": True,
    }
    try:
        return (await client.post("/v1/chat/completions", json=body)).is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
