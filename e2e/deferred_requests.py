"""Polls llama-servers for deferred requests until standard input ends, then prints the maximum.

    python e2e/deferred_requests.py llama-replicas.e2e.svc

The name resolves to the ready replicas. A deferred request is one that llama-server has accepted
without a free slot. Behind a balancer their number must always be 0.
"""

import asyncio
import json
import re
import socket
import sys

import httpx

POLL_SECONDS = 0.02
_DEFERRED = re.compile(r"^llamacpp:requests_deferred (\d+)", re.MULTILINE)


async def poll(name: str, port: int) -> tuple[int, int]:
    """Return the maximum of deferred requests on any replica, and the number of samples."""
    stopped = asyncio.Event()
    maximum = samples = 0
    async with httpx.AsyncClient(timeout=5) as client, asyncio.TaskGroup() as group:

        async def stop_at_eof() -> None:
            await asyncio.to_thread(sys.stdin.read)
            stopped.set()

        group.create_task(stop_at_eof())
        while not stopped.is_set():
            for address in await _addresses(name, port):
                try:
                    text = (await client.get(f"http://{address}:{port}/metrics")).text
                except httpx.HTTPError:
                    continue  # the replica is terminating
                if match := _DEFERRED.search(text):
                    samples += 1
                    maximum = max(maximum, int(match[1]))
            await asyncio.sleep(POLL_SECONDS)
    return maximum, samples


async def _addresses(name: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        resolved = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []  # no replica is ready
    return [str(address[0]) for *_, address in resolved]


if __name__ == "__main__":
    deferred, count = asyncio.run(poll(sys.argv[1], 8080))
    print(json.dumps({"deferred": deferred, "samples": count}))
