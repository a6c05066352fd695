"""Fake of all balancers of all servers, idle: `python -m bench.reconcile.fake_balancers`.

Listens on the addresses of all fake pods and returns the metrics of a balancer without requests.
"""

import asyncio
import json

from typing_extensions import override

PORT = 9090

_DEMAND = json.dumps(
    {
        "leader": True,
        "slots": {"total": 4, "busy": 0},
        "queued": 0,
        "oldestQueuedSeconds": 0.0,
        "replicas": 1,
        "demand": 0,
        "peakDemand": 0,
    }
).encode()
_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(_DEMAND)).encode()
    + b"\r\n\r\n"
    + _DEMAND
)


class Balancer(asyncio.Protocol):
    """One connection; each request gets the same response."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(_RESPONSE)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Balancer, "0.0.0.0", PORT, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
