"""Sends requests in groups, and compares what llama-server and the balancer count meanwhile.

    python e2e/request_slots.py BALANCER_URL REPLICA_URL < GROUPS

Each line of standard input is a JSON list of bodies for /completion, which are sent at once. For
each line another one is printed: the maximum of busy slots in the replica's own /slots, of its
deferred tasks, and of busy slots in the balancer's /slots.
"""

import asyncio
import json
import re
import sys
from typing import Any

import httpx

_DEFERRED = re.compile(r"^llamacpp:requests_deferred (\d+)", re.MULTILINE)


async def observe(
    client: httpx.AsyncClient, balancer: str, replica: str, bodies: list[dict[str, Any]]
) -> list[int]:
    """Send the requests at once; return the three maxima while they run."""
    requests = (client.post(f"{balancer}/completion", json=body) for body in bodies)
    sending = asyncio.gather(*requests)
    maxima = [0, 0, 0]
    while not sending.done():
        own, metrics, balancer_slots = await asyncio.gather(
            client.get(f"{replica}/slots"),
            client.get(f"{replica}/metrics"),
            client.get(f"{balancer}/slots"),
        )
        deferred = _DEFERRED.search(metrics.text)
        counts = [_busy(own), int(deferred[1]) if deferred else -1, _busy(balancer_slots)]
        maxima = [max(pair) for pair in zip(maxima, counts, strict=True)]
    for response in await sending:
        response.raise_for_status()
    return maxima


def _busy(response: httpx.Response) -> int:
    return sum(slot["is_processing"] for slot in response.json())


async def main(balancer: str, replica: str) -> None:
    """Observe each group of standard input."""
    async with httpx.AsyncClient(timeout=120) as client:
        for line in sys.stdin.read().splitlines():
            print(json.dumps(await observe(client, balancer, replica, json.loads(line))))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
