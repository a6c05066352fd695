"""A real llama-server with a generated model, as a process of a test."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60


def write_model(name: str, *arguments: str) -> Path:
    """Return a model that `write_gguf.py` writes with these arguments, if it is not there."""
    # Not build/models, which the end-to-end tests write at the same time.
    path = _ROOT / f"build/test-models/{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # The packages of some tests lack what writes it.
        python = _ROOT / ".venv/bin/python"
        command = str(python) if python.exists() else sys.executable
        script = _ROOT / "images/demo-models/write_gguf.py"
        unfinished = path.with_stem(f"{name}-{os.getpid()}")
        subprocess.run([command, str(script), str(unfinished), *arguments], check=True)
        unfinished.replace(path)
    return path


@contextmanager
def run_llama_server(command: Sequence[str], model: Path, *arguments: str) -> Iterator[int]:
    """Yield the port of a llama-server that is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    address = ("--host", "127.0.0.1", "--port", str(port))
    process = subprocess.Popen(
        [*command, "--model", str(model), *address, "--threads", "1", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _SECONDS
        while not _is_ready(port):
            assert process.poll() is None, "llama-server ended"
            assert time.monotonic() < deadline, "llama-server is not ready"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def send(port: int, path: str, body: object) -> Any:
    """Return the response to a POST, as JSON."""
    headers = {"Content-Type": "application/json"}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=_SECONDS) as response:
        return json.load(response)


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except URLError:
        return False
