"""A fake Kubernetes API server with one EndpointSlice, which a balancer can list and watch."""

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
        """A kubeconfig for this server."""
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
        """Set the ready endpoints and send an event to all watches."""
        self._ports = list(ports)
        self._version += 1
        event = json.dumps({"type": "MODIFIED", "object": self._slice()}) + "\n"
        for writer in self._watchers:
            writer.write(f"{len(event):x}\r\n{event}\r\n".encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
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
            # All fakes have the same address and differ by port, and a slice's ports apply to all
            # of its endpoints: so one endpoint with several ports stands for several replicas.
            "ports": [{"name": "http", "port": port} for port in self._ports],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }


@asynccontextmanager
async def fake_cluster(ports: Sequence[int]) -> AsyncIterator[FakeCluster]:
    """Start a FakeCluster on the loopback interface with these endpoints."""
    cluster = FakeCluster(ports)
    server = await asyncio.start_server(cluster.serve, "127.0.0.1", 0)
    cluster.port = server.sockets[0].getsockname()[1]
    yield cluster
    server.close()
