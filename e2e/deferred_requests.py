"""Watch llama-servers for requests beyond their slots until standard input ends; print the most.

    python e2e/deferred_requests.py llama-replicas.e2e-1.svc

The name resolves to the replicas that are ready. llama-server counts as deferred what waits inside
of it for a slot: with a balancer in front that must stay 0, whatever happens.
"""

import asyncio
import json
import re
import socket
import sys

import httpx

EVERY = 0.02
_DEFERRED = re.compile(r"^llamacpp:requests_deferred (\d+)", re.MULTILINE)


async def watch(name: str, port: int) -> tuple[int, int]:
    """The most that were deferred on any replica at any look, and the number of looks."""
    over = asyncio.Event()
    most = looks = 0
    async with httpx.AsyncClient(timeout=5) as client, asyncio.TaskGroup() as beside:

        async def ends() -> None:
            await asyncio.to_thread(sys.stdin.read)
            over.set()

        beside.create_task(ends())
        while not over.is_set():
            for address in await _addresses(name, port):
                try:
                    text = (await client.get(f"http://{address}:{port}/metrics")).text
                except httpx.HTTPError:
                    continue  # it is just leaving
                if found := _DEFERRED.search(text):
                    looks += 1
                    most = max(most, int(found[1]))
            await asyncio.sleep(EVERY)
    return most, looks


async def _addresses(name: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []  # none is ready
    return [str(address[0]) for *_, address in found]


if __name__ == "__main__":
    deferred, times = asyncio.run(watch(sys.argv[1], 8080))
    print(json.dumps({"deferred": deferred, "looks": times}))
