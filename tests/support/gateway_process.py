"""A gateway in a process of its own, in front of one server: `python gateway_process.py PORT`.

It prints its port, and runs until its input ends.
"""

import asyncio
import sys
from dataclasses import dataclass

import uvloop

from running_gateway import run_gateway


@dataclass
class Port:
    port: int


async def serve(port: int) -> None:
    async with run_gateway(one=Port(port), test_seconds=300) as gateway:
        print(gateway.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
