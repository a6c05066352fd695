"""Prometheus' own linter, `promtool check metrics`, accepts all metrics."""

import re
import shutil
import subprocess
from collections.abc import Set as AbstractSet

import pytest
from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    generate_latest,
)

from balancer_harness import Balancer, run_balancer
from fake_llama import Call, FakeLlama, never_respond
from raw_http import RawClient, get, post
from running_gateway import run_gateway
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import KIND
from slotkeeper.batches import metrics as batches
from slotkeeper.gateway.shadow import Measured, Pair, Side
from slotkeeper.kube.objects import Key
from slotkeeper.node_cache import metrics as node_cache
from slotkeeper.node_folder import Limits
from slotkeeper.reconcile.downloads.tracker import DownloadSample
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.report.scaling_snapshot import ReplicaBounds, ScalingSnapshot

PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (on Debian: apt-get install prometheus)"
)


async def test_promtool_accepts_the_metrics_of_the_balancer() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as serving, run_balancer() as blocked:
        await serving.request(post("/completion"))
        blocked.proxy.set_blocked(StartBlocker("Unschedulable", "no GPU", permanent=False))

        assert_accepted(await scrape(serving), await scrape(blocked))


async def test_promtool_accepts_the_metrics_of_the_gateway() -> None:
    async def stream(call: Call) -> None:
        await call.send_head(extra="X-Slotkeeper-Wait-Seconds: 1.000\r\n")
        for _ in range(2):
            await call.send_event('{"timings":{"prompt_n":1,"predicted_n":2}}')
        await call.end()

    async def aborted(call: Call) -> None:
        await call.send_head()
        await call.send_event("{}")
        call.close()

    async with FakeLlama(9, stream) as llama, run_gateway(one=llama) as gateway:
        await gateway.request(post("/v1/chat/completions"))
        llama.script = aborted
        client = await gateway.connect()
        await client.send(post("/v1/chat/completions"))
        await client.reader.read()
        await gateway.request(post("/v1/chat/completions", b'{"model": "unknown"}'))
        metrics = gateway.gateway.metrics
        metrics.retried("one")
        metrics.fell_back("one", "two", "Failed")
        sides: dict[Side, Measured] = {
            "original": Measured(200, 1.0, 2),
            "shadow": Measured(200, 1.0, 2),
        }
        metrics.shadowed("one", "two", "compared", Pair("one", "two", sides))
        llama.script = never_respond
        await gateway.start_request(post("/v1/chat/completions"))

        # Without a backend there are no samples of these.
        backends = ("backend_responses_total", "backend_paused")
        without = {f"slotkeeper_gateway_{name}" for name in backends}
        assert_accepted(metrics.text().decode(), without=without)


def test_promtool_accepts_the_metrics_of_the_operator() -> None:
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)  # as in the default registry, which the operator serves
    metrics = Metrics(registry, lambda: 1)
    key = Key("default", "chat")
    snapshot = ScalingSnapshot(1, "Idle", 0, bounds=ReplicaBounds(0, 1, active=True))
    metrics.register(
        conflicts=lambda: 1,
        snapshots=lambda: [(key, snapshot)],
        unreadable=lambda: {"Pod": 1},
        leads=lambda: True,
        budget_waits=lambda: [(key, 1.0)],
        prefetches=lambda: {"Running": 1},
    )
    metrics.register_downloads(lambda: [(key, DownloadSample(2, 1, 0.0))])
    metrics.register_accelerators(lambda: {"NoDeviceFound": 1})
    metrics.count_reconcile(0.1, failed=False)
    metrics.count_correction("Deployment")
    metrics.set_conditions(KIND, key, [{"type": "Ready", "status": "True"}])
    metrics.count_suppressed_error("watch")
    metrics.count_decision(key, None, snapshot)

    assert_accepted(generate_latest(registry).decode())


def test_promtool_accepts_the_metrics_of_a_node_cache() -> None:
    registry = CollectorRegistry()
    node_cache.Metrics(registry, Limits(max_bytes=1, min_free_percent=1))

    assert_accepted(generate_latest(registry).decode())


def test_promtool_accepts_the_metrics_of_batches() -> None:
    metrics = batches.Metrics()
    metrics.statuses = {"in_progress": 1}

    assert_accepted(metrics.text().decode())


async def scrape(made: Balancer) -> str:
    async with await RawClient.connect(made.metrics_port) as client:
        return (await client.request(get("/metrics"))).body.decode()


def assert_accepted(*texts: str, without: AbstractSet[str] = frozenset()) -> None:
    """Run promtool on each text. Each metric must have a sample in one of them, apart from
    `without`: promtool ignores metrics without samples."""
    names = {name for text in texts for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)}
    sampled = set(re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?[{ ]", "".join(texts), re.MULTILINE))
    assert names - without <= sampled

    for text in texts:
        result = subprocess.run(
            [str(PROMTOOL), "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout + result.stderr) == (0, "")
