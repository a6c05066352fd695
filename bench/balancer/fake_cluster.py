"""A Kubernetes API server that knows one EndpointSlice: enough for a balancer to follow it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class FakeCluster:
    """Serves list and watch of one EndpointSlice."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = 0
        self._ports = list(ports)
        self._version = 1
        self._watchers: set[asyncio.StreamWriter] = set()

    @property
    def kubeconfig(self) -> str:
        """A configuration that leads here."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "bench",
                "clusters": [
                    {"name": "bench", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
                ],
                "users": [{"name": "bench", "user": {}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            }
        )

    def change(self, ports: Sequence[int]) -> None:
        """These are the ready endpoints now; whoever watches is told at once."""
        self._ports = list(ports)
        self._version += 1
        event = json.dumps({"type": "MODIFIED", "object": self._slice()}) + "\n"
        for writer in self._watchers:
            writer.write(f"{len(event):x}\r\n{event}\r\n".encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"watch=true" in head.split(b"\r\n")[0]:
                    self._watchers.add(writer)
                    writer.write(f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
                    await reader.read()
                    return
                listing = {"metadata": {"resourceVersion": "1"}, "items": [self._slice()]}
                body = json.dumps(listing)
                writer.write(f"{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._watchers.discard(writer)
            writer.close()

    def _slice(self) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "bench", "resourceVersion": str(self._version)},
            # Each fake has a port of its own, so one slice cannot hold two of them: the port is
            # the slice's. One port after another names the same address with each.
            "ports": [{"name": "http", "port": port} for port in self._ports],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }


@asynccontextmanager
async def fake_cluster(ports: Sequence[int]) -> AsyncIterator[FakeCluster]:
    """A FakeCluster that listens on the loopback, with these endpoints at first."""
    made = FakeCluster(ports)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
