#!/opt/suite/bin/python
"""Start llama-server as the tests request it, with a local model, directly or behind a balancer.

The tests start this program as `llama-server`. With the environment variable SUITE_THROUGH_BALANCER
the requested port is a balancer's, and llama-server listens on another one, with the flags that the
operator always sets.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

MODEL = "/models/quick.gguf"
FIM_TOKENS = ("fim_pre_token_id=int:20", "fim_suf_token_id=int:21", "fim_mid_token_id=int:22")
"""Tokens of the demo model that separate the parts of an infill prompt."""

LOCAL: dict[str, tuple[str, ...]] = {
    "ggml-org/test-model-stories260K": (),
    "ggml-org/stories15M_MOE:stories15M_MOE-F16.gguf": (),
    "ggml-org/models:bert-bge-small/ggml-model-f16.gguf": ("--pooling", "mean"),
    "ggml-org/test-model-stories260K-infill": tuple(
        part for token in FIM_TOKENS for part in ("--override-kv", f"tokenizer.ggml.{token}")
    ),
}
"""Models of the Hugging Face hub that the demo model replaces, with the flags that it needs."""


def local_model(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a local model instead of one of the hub, if it can replace it."""
    repository = value(arguments, "--hf-repo")
    file = value(arguments, "--hf-file")
    replaced = LOCAL.get(f"{repository}:{file}" if file else repository)
    if replaced is None:
        return list(arguments)
    kept = without(without(arguments, "--hf-repo"), "--hf-file")
    # First, so that a test's own flag is the later one, which applies. The template is the default
    # for a model without one, as those of the hub. The model is too small for several threads.
    defaults = ("--model", MODEL, "--chat-template", "chatml", "--threads", "1")
    return [*defaults, *replaced, *kept]


def value(arguments: Sequence[str], flag: str) -> str:
    """Return the value of a flag, "" without it."""
    return arguments[arguments.index(flag) + 1] if flag in arguments else ""


def without(arguments: Sequence[str], flag: str) -> list[str]:
    """Return the arguments without a flag and its value."""
    if flag not in arguments:
        return list(arguments)
    at = arguments.index(flag)
    return [*arguments[:at], *arguments[at + 2 :]]


def behind_balancer(arguments: Sequence[str]) -> int:
    """Run llama-server and a balancer in front of it until one of them ends, or SIGTERM."""
    port = free_port()
    requested, key = value(arguments, "--port"), value(arguments, "--api-key")
    inner = without(without(without(arguments, "--port"), "--host"), "--api-key")
    inner = [each for each in inner if each != "--no-slots"]
    inner += ("--host", "127.0.0.1", "--port", str(port), "--slots", "--metrics")
    if "AIP_HTTP_PORT" in os.environ:
        os.environ["AIP_HTTP_PORT"] = str(port)
    processes = [start("llama-server", *inner)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if not wait_ready(port, processes[0]):
            return processes[0].returncode
        with tempfile.TemporaryDirectory() as keys:
            (Path(keys) / "key").write_text(key)
            command = (
                *(sys.executable, "-m", "slotkeeper", "balancer"),
                *("--listen", f"[::]:{requested}", "--metrics", "127.0.0.1:0"),
                *("--replica", f"127.0.0.1:{port}"),
                *("--model", value(arguments, "--alias") or "default"),
                *("--shutdown-delay", "0", "--drain-timeout", "0"),
                *(("--api-keys", keys) if key else ()),
            )
            processes.append(start(*command))
            while all(process.poll() is None for process in processes):
                time.sleep(0.05)
            return next(code for process in processes if (code := process.poll()) is not None)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def start(*command: str) -> subprocess.Popen[bytes]:
    """Start a process that is killed with this one."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])


def wait_ready(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until llama-server has loaded its model; False if it ended before."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                return True
        except OSError:
            time.sleep(0.02)
    return False


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Serve."""
    arguments = local_model(sys.argv[1:])
    if os.environ.get("SUITE_THROUGH_BALANCER"):
        sys.exit(behind_balancer(arguments))
    os.execvp("llama-server", ["llama-server", *arguments])


if __name__ == "__main__":
    main()
