"""Clients that ask again and again while a test does things to their server."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from servers import Server
from stack import CHAT, ROOT


@dataclass
class Load:
    """How it went, once the load is over."""

    endings: list[dict[str, Any]] = field(default_factory=list)
    deferred: int = 0
    """The most requests seen in a llama-server beyond its slots."""
    looks: int = 0
    """How often that was looked at."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Requests that were not answered to their end."""
        return [ending for ending in self.endings if not ending["answered"]]


@contextmanager
def load(server: Server, *, clients: int, tokens: int) -> Iterator[Load]:
    """So many clients stream so many tokens, one request after the other, inside of the `with`."""
    found = Load()
    size = ("--requests", str(clients), "--tokens", str(tokens))
    asking = server.cluster.start("run", *CHAT, server.url, "--stream", "--repeat", *size)
    replicas = f"{server.name}-replicas.{server.namespace}.svc"
    script = str(ROOT / "e2e/deferred_requests.py")
    watching = server.cluster.start("run", sys.executable, script, replicas)
    try:
        yield found
    finally:
        said, _ = asking.communicate()
        watched, _ = watching.communicate()
    found.endings = [json.loads(line) for line in said.splitlines()]
    found.deferred, found.looks = (json.loads(watched)[key] for key in ("deferred", "looks"))
    # Shown by `pytest -rP`.
    answered = len(found.endings) - len(found.failed)
    print(f"{len(found.endings)} requests sent, {answered} answered, {len(found.failed)} not")
