"""Prometheus' own linter, `promtool check metrics`, accepts all metrics."""

import re
import shutil
import subprocess

import pytest
from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    generate_latest,
)

from balancer_harness import Balancer, run_balancer
from fake_llama import FakeLlama
from raw_http import RawClient, get, post
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import KIND
from slotkeeper.kube.objects import Key
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
    )
    metrics.count_reconcile(0.1, failed=False)
    metrics.count_correction("Deployment")
    metrics.set_conditions(KIND, key, [{"type": "Ready", "status": "True"}])
    metrics.count_suppressed_error("watch")
    metrics.count_decision(key, None, snapshot)

    assert_accepted(generate_latest(registry).decode())


async def scrape(made: Balancer) -> str:
    async with await RawClient.connect(made.metrics_port) as client:
        return (await client.request(get("/metrics"))).body.decode()


def assert_accepted(*texts: str) -> None:
    """Run promtool on each text. Each metric must have a sample in one of them: promtool ignores
    metrics without samples."""
    names = {name for text in texts for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)}
    sampled = set(re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?[{ ]", "".join(texts), re.MULTILINE))
    assert names <= sampled

    for text in texts:
        result = subprocess.run(
            [str(PROMTOOL), "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout + result.stderr) == (0, "")
