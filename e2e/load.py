"""Clients that send one request after the other while a test changes their server."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from servers import Server
from stack import CHAT, ROOT


@dataclass
class LoadResult:
    """The results of a load, filled in when it has ended."""

    results: list[dict[str, Any]] = field(default_factory=list)
    deferred: int = 0
    """Maximum of requests that a llama-server had beyond its slots."""
    samples: int = 0
    """How often the deferred requests were polled."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Requests that were not completed."""
        return [result for result in self.results if not result["completed"]]


@contextmanager
def load(server: Server, *, clients: int, tokens: int) -> Iterator[LoadResult]:
    """Run `clients` clients inside of the `with`; each streams `tokens` tokens per request."""
    outcome = LoadResult()
    size = ("--requests", str(clients), "--tokens", str(tokens))
    sending = server.cluster.start("run", *CHAT, server.url, "--stream", "--repeat", *size)
    replicas = f"{server.name}-replicas.{server.namespace}.svc"
    script = str(ROOT / "e2e/deferred_requests.py")
    polling = server.cluster.start("run", sys.executable, script, replicas)
    try:
        yield outcome
    finally:
        sent, _ = sending.communicate()
        polled, _ = polling.communicate()
    outcome.results = [json.loads(line) for line in sent.splitlines()]
    outcome.deferred, outcome.samples = (json.loads(polled)[key] for key in ("deferred", "samples"))
    # `pytest -rP` shows this line.
    total, failed = len(outcome.results), len(outcome.failed)
    print(f"{total} requests sent, {total - failed} completed, {failed} failed")
