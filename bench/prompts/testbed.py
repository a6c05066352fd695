"""A balancer in front of real llama-servers, as processes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

IDENTITY = "0123456789abcdef"
AGENT_PORT = 9094
REPLICA_PORT = 9001
PRIME_SECONDS = 600
SECONDS = 300.0


@dataclass(frozen=True)
class Answer:
    """A response to a prompt."""

    first_token_seconds: float
    text: str
    cached: int
    """Tokens of the prompt that were not computed."""
    computed: int
    probabilities: Sequence[Any]
    """Of each generated token, with the runner-up."""


@dataclass
class Testbed:
    """The processes. Enter it to start the balancer.

    `folder`: of the prompt files, and beside it of logs; `prime`: of beginnings, without files.
    """

    llama_server: Sequence[str]
    model: Path
    folder: Path
    hosts: Sequence[str]
    slots: int = 2
    context: int = 4096
    threads: int = 2
    files: bool = True
    """Prompts are saved and restored."""
    prime: Path | None = None
    address: str = "127.0.0.1"
    """Of the balancer."""
    _stack: ExitStack = field(init=False, default_factory=ExitStack)
    _running: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)

    def __enter__(self) -> Self:
        """Start the balancer."""
        self._client = self._stack.enter_context(httpx.Client(trust_env=False, timeout=SECONDS))
        replicas = [part for host in self.hosts for part in ("--replica", f"{host}:{REPLICA_PORT}")]
        flags: list[str] = []
        if self.files:
            flags += ("--prompt-files", str(AGENT_PORT), "--prompt-min-tokens", "256")
        if self.prime:
            flags += ("--prime-folder", str(self.prime), "--prime-seconds", str(PRIME_SECONDS))
        ports = ("--listen", self._balancer, "--metrics", self._metrics)
        self._start("balancer", "balancer", *ports, *replicas, *flags)
        return self

    @property
    def _balancer(self) -> str:
        return f"{self.address}:8099"

    @property
    def _metrics(self) -> str:
        return f"{self.address}:8098"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes."""
        self._stack.close()

    @contextmanager
    def replica(self, host: str) -> Iterator[None]:
        """Run a replica with its agent, if it has one; at the end both are killed.

        A replica that is primed gets requests once that is done.
        """
        if self.files:
            self._start_agent(host)
        self._start_llama_server(host)
        try:
            yield
        finally:
            for name in (f"llama-server {host}", f"agent {host}"):
                self._kill(name)
            if not self.files:
                # The balancer notices by a request.
                self._wait_until_refused()

    def kill_and_restart(self, host: str) -> None:
        """Kill a llama-server, and start it again."""
        self._kill(f"llama-server {host}")
        # In a cluster the endpoints show it. Here the next request is refused, and waits.
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(self.ask, "a", 1)
            self._wait_until_gone()
            self._start_llama_server(host)
            waiting.result()

    def _wait_until_gone(self) -> None:
        while self.metric("slotkeeper_balancer_slots"):
            time.sleep(0.01)

    def _wait_until_refused(self) -> None:
        """Send a request that is refused, and end it: a queued one would end priming."""
        client = httpx.Client(trust_env=False, timeout=httpx.Timeout(SECONDS, read=1.0))
        with client, suppress(httpx.ReadTimeout):
            client.post(f"http://{self._balancer}/completion", json={"prompt": "a"})
        self._wait_until_gone()

    def ask(self, prompt: str, tokens: int) -> Answer:
        """Send a prompt to the balancer."""
        body = {
            "prompt": prompt,
            "n_predict": tokens,
            "temperature": 0,
            "stream": True,
            "n_probs": 2,
        }
        began = time.monotonic()
        first: float | None = None
        events: list[Any] = []
        with self._client.stream(
            "POST", f"http://{self._balancer}/completion", json=body
        ) as response:
            if response.status_code != 200:
                raise SystemExit(response.read().decode())
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    first = first or time.monotonic() - began
                    events.append(json.loads(line[6:]))
        timings = events[-1]["timings"]
        return Answer(
            first or 0.0,
            "".join(event["content"] for event in events),
            timings["cache_n"],
            timings["prompt_n"],
            [each for event in events for each in event.get("completion_probabilities", ())],
        )

    def metric(self, name: str) -> float:
        """Return the sum of a metric of the balancer over its labels."""
        text = self._client.get(f"http://{self._metrics}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def wait_for_saves(self, count: int) -> None:
        """Wait until this many slots have been saved."""
        deadline = time.monotonic() + SECONDS
        while self.metric("slotkeeper_balancer_prompt_saves_total") < count:
            if time.monotonic() > deadline:
                raise SystemExit("prompts are not saved")
            time.sleep(0.1)

    def _start_agent(self, host: str) -> None:
        folder = ("--folder", str(self.folder), "--identity", IDENTITY, "--min-free-percent", "1")
        listen = ("--listen", f"{host}:{AGENT_PORT}")
        subprocess.run(
            [sys.executable, "-m", "slotkeeper", "prompt-files", *folder, "--prepare"], check=True
        )
        self._start(f"agent {host}", "prompt-files", *folder, *listen)

    def _start_llama_server(self, host: str) -> None:
        name = f"llama-server {host}"
        command = (
            *self.llama_server,
            *("--model", str(self.model), "--host", host, "--port", str(REPLICA_PORT)),
            *("--parallel", str(self.slots), "--ctx-size", str(self.slots * self.context)),
            *("--threads", str(self.threads), "--slots", "--metrics", "--no-webui"),
            *(("--slot-save-path", f"{self.folder}/{IDENTITY}/") if self.files else ()),
        )
        self._popen(name, command)
        self._wait_until_ready(f"http://{host}:{REPLICA_PORT}/health")
        # The balancer has noticed, too.
        slots = len(self._answering_hosts()) * self.slots
        deadline = time.monotonic() + SECONDS + PRIME_SECONDS
        while self.metric("slotkeeper_balancer_slots") < slots:
            if time.monotonic() > deadline:
                raise SystemExit("the balancer does not use the replica")
            time.sleep(0.05)

    def _answering_hosts(self) -> list[str]:
        return [name for name in self._running if name.startswith("llama-server ")]

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                if self._client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise SystemExit(f"no response from {url}")
            time.sleep(0.1)

    def _start(self, name: str, *arguments: str) -> None:
        self._popen(name, (sys.executable, "-m", "slotkeeper", *arguments))
        if name == "balancer":
            self._wait_until_ready(f"http://{self._metrics}/metrics")

    def _popen(self, name: str, command: Sequence[str]) -> None:
        log = self._stack.enter_context((self.folder.parent / f"{name}.log").open("ab"))
        process = subprocess.Popen(command, stdout=log, stderr=log)
        self._running[name] = process
        self._stack.callback(self._kill, name)

    def _kill(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process:
            process.send_signal(signal.SIGKILL)
            process.wait()
