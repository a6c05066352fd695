"""Files and batches in this process, behind a gateway in front of fake llama-servers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raw_http import Response, get, post
from running_gateway import ANN, RunningGateway, Upstream, run_gateway
from slotkeeper.batches.api import MAX_BODY, Api, ApiLimits
from slotkeeper.batches.client import GatewayClient, KeyRing
from slotkeeper.batches.disk import Disk
from slotkeeper.batches.metrics import Metrics
from slotkeeper.batches.store import Store
from slotkeeper.batches.worker import Settings, Worker
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.body_admission import BodyAdmission
from slotkeeper.edge.cors import ANY_ORIGIN
from slotkeeper.edge.uploads import is_upload
from slotkeeper.wire.limits import MIB, Limits
from slotkeeper.wire.server import Server
from wait_until import until

CHAT = "/v1/chat/completions"
BOUNDARY = "form"


@dataclass
class Clock:
    """The time of day of the batches process."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class RunningBatches:
    """The parts, and what clients do with them."""

    gateway: RunningGateway
    store: Store
    worker: Worker
    api: Api
    metrics: Metrics
    port: int
    clock: Clock
    headers: list[str] = field(default_factory=list)

    async def upload(
        self, content: bytes, *headers: str, filename: str = "in.jsonl", purpose: str = "batch"
    ) -> Response:
        """Upload a file through the gateway."""
        return await self.gateway.request(
            upload_request(content, *(headers or self.headers), filename=filename, purpose=purpose)
        )

    async def file_id(self, content: bytes, *headers: str) -> str:
        response = await self.upload(content, *headers)
        assert response.status == 200, response.body
        return str(json.loads(response.body)["id"])

    async def create(self, file_id: str, *headers: str, **fields: Any) -> Response:
        """Create a batch."""
        tree = {
            "input_file_id": file_id,
            "endpoint": CHAT,
            "completion_window": "24h",
            **fields,
        }
        body = json.dumps(tree).encode()
        return await self.gateway.request(post("/v1/batches", body, *(headers or self.headers)))

    async def start(self, content: bytes, *headers: str, **fields: Any) -> str:
        """Upload a file, create a batch of it, and return its id."""
        response = await self.create(await self.file_id(content, *headers), *headers, **fields)
        assert response.status == 200, response.body
        return str(json.loads(response.body)["id"])

    async def get(self, path: str, *headers: str, method: str = "GET") -> Response:
        return await self.gateway.request(get(path, *(headers or self.headers), method=method))

    async def batch(self, batch_id: str) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads((await self.get(f"/v1/batches/{batch_id}")).body)
        return tree

    async def wait_status(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the batch has one of these statuses."""
        async with asyncio.timeout(15):
            while (  # noqa: ASYNC110 (over HTTP there is no event)
                batch := await self.batch(batch_id)
            )["status"] not in statuses:
                await asyncio.sleep(0.01)
        return batch

    async def content(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return the lines of a file with results; none without one."""
        if file_id is None:
            return []
        response = await self.get(f"/v1/files/{file_id}/content")
        assert response.status == 200
        return [json.loads(line) for line in response.body.splitlines()]

    async def until(self, condition: Any) -> None:
        await until(condition)


def lines(count: int, model: str = "one", **body: Any) -> bytes:
    """Return a file with so many requests, of the ids r0, r1 and so on."""
    return b"".join(request_line(f"r{number}", model, **body) for number in range(count))


def request_line(custom_id: str, model: str = "one", url: str = CHAT, **body: Any) -> bytes:
    tree = {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": {"model": model, "messages": [{"role": "user", "content": custom_id}], **body},
    }
    return json.dumps(tree).encode() + b"\n"


def form(content: bytes, *, filename: str = "in.jsonl", purpose: str = "batch") -> bytes:
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + b"%s\r\n--%s--\r\n" % (content, BOUNDARY.encode())


def upload_request(
    content: bytes, *headers: str, filename: str = "in.jsonl", purpose: str = "batch"
) -> bytes:
    return form_request(form(content, filename=filename, purpose=purpose), *headers)


def form_request(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{each}\r\n" for each in headers)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Port:
    port: int


@asynccontextmanager
async def run_batches(
    folder: Path,
    *,
    keys: Mapping[str, bytes] | None = None,
    spec: Mapping[str, Any] | None = None,
    limits: ApiLimits | None = None,
    store_bytes: int | None = None,
    concurrency: int = 4,
    max_line: int = MIB,
    **upstreams: Upstream,
) -> AsyncIterator[RunningBatches]:
    """Run a gateway with batches, in front of these servers."""
    loop = asyncio.get_running_loop()
    ring: KeyRing | None = None
    if keys is not None:
        ring = KeyRing(b"salt")
        ring.replace(keys)
    clock = Clock()
    async with run_gateway(
        {"batches": {}, **(spec or {})},
        keys=ring,
        limits=None,
        net=None,
        secrets=None,
        test_seconds=60,
        **upstreams,
    ) as gateway:
        store = Store(folder, store_bytes)
        disk = Disk(store)
        metrics = Metrics()
        client = GatewayClient(("127.0.0.1", gateway.port))
        limits = limits or ApiLimits(4 * MIB, 30 * 86_400)
        worker = Worker(
            disk,
            client,
            lambda: None if ring is None else ring.secrets,
            Settings(concurrency, max_line, limits.retention_seconds, retry_seconds=0.05),
            metrics,
            clock,
        )
        log = AccessLog(io.StringIO(), loop.call_later, clock)
        api = Api(disk, worker, ring, limits, log, clock)
        server = Server(
            api.handle,
            Limits(max_body=MAX_BODY),
            BodyAdmission(api.owner, api.log_incomplete, ANY_ORIGIN, is_upload),
        )
        _, port = await server.listen("127.0.0.1", 0)
        gateway.upstreams["llm-batches"] = Port(port)
        running = loop.create_task(worker.run())
        headers = [] if keys is None else [ANN]
        try:
            yield RunningBatches(gateway, store, worker, api, metrics, port, clock, headers)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.close()
            await api.close()
            client.close()
            disk.close()
