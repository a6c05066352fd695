"""The tables in the documents are those of the code: reasons, metrics, errors, flags, paths."""

import ast
import importlib
import inspect
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from client_features import FEATURES, proofs
from documents import DOCS, DOCUMENTS, codes, first_codes, inline_code, section, table, tables
from slotkeeper.api import demand_report, paths
from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.demand_report import (
    DemandReport,
    PrimeReport,
    PromptCacheReport,
    SpeculationReport,
)
from slotkeeper.api.group import GATEWAY_KIND, KIND
from slotkeeper.api.model_state import ModelState
from slotkeeper.api.paths import Cost
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.balancer.admin import queue_page
from slotkeeper.balancer.admin import server as admin
from slotkeeper.balancer.local_responses import LocalResponses, Model
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy import request_log
from slotkeeper.batches import metrics as batches_metrics
from slotkeeper.batches.records import BatchStatus
from slotkeeper.edge import access_log, routes, wait_headers
from slotkeeper.edge.usage import Tokens
from slotkeeper.gateway import admin as gateway_admin
from slotkeeper.gateway import metrics as gateway_metrics
from slotkeeper.gateway import request_log as gateway_request_log
from slotkeeper.gateway import usage_log
from slotkeeper.gateway.backends.registry import public_backends
from slotkeeper.kube.objects import Key
from slotkeeper.llamacpp.acceptance import Guesses
from slotkeeper.reconcile import metrics as operator_metrics
from slotkeeper.reconcile.decide.replicas import GATEWAY_BUDGET, MANUAL, SUSPENDED
from slotkeeper.reconcile.downloads.tracker import DownloadSample
from slotkeeper.reconcile.report import download_events, events
from slotkeeper.reconcile.report.scaling_snapshot import ReplicaBounds, ScalingSnapshot
from slotkeeper.scaling.decide import ScalingReason
from slotkeeper.scheduling import Dispatcher, QueueLimits
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.wire.server import Server

PACKAGE = Path(inspect.getfile(admin)).parents[2]
COMMAND_LINE = (DOCS / "reference/command-line.md").read_text()
ERRORS = (DOCS / "reference/errors.md").read_text()
HTTP = (DOCS / "reference/http-api.md").read_text()
METRICS = (DOCS / "reference/metrics.md").read_text()


# Reasons.


def test_the_reasons_of_decisions_are_complete() -> None:
    rows = table((DOCS / "concepts/scaling.md").read_text(), "reason", "meaning")

    assert first_codes(rows) == [*ScalingReason, MANUAL, SUSPENDED, GATEWAY_BUDGET]


def test_the_conditions_are_complete() -> None:
    rows = table((DOCS / "concepts/status.md").read_text(), "condition", "True means")

    assert first_codes(rows) == list(ConditionType)


def test_the_events_are_complete() -> None:
    rows = table((DOCS / "concepts/status.md").read_text(), "reason", "type", "when")
    source = inspect.getsource(events) + inspect.getsource(download_events)
    own = {*re.findall(r'EventContent\("\w+", "(\w+)"', source), "ScaledUp", "ScaledDown"}

    assert all(f'"{reason}"' in source for reason in own)
    assert set(first_codes(rows)) == own


def test_each_reason_that_a_guide_names_exists() -> None:
    # Values of the API and of Kubernetes that are written like a reason.
    values = {"RollingUpdate", "DriftCorrected", "ScaledUp", "ScaledDown", *get_args(ModelState)}
    values |= {"LoadBalancer", "NodePort", "WaitForFirstConsumer", KIND, GATEWAY_KIND}
    values |= {"DownloadStarted", "DownloadCompleted", "PrefetchStarted"}
    existing = {*Reason, *ConditionType, *ScalingReason, MANUAL, SUSPENDED, GATEWAY_BUDGET, *values}
    named = {
        code
        for document in (*(DOCS / "concepts").glob("*.md"), DOCS / "operating.md")
        for code in inline_code(document.read_text())
        if re.fullmatch(r"([A-Z][a-z]+){2,}|([A-Z][a-z]+)+(URL|GGUF)\w*", code)
    }

    assert len(named) > 30
    assert named <= existing


def test_the_reasons_of_ejections_are_complete() -> None:
    rows = table((DOCS / "concepts/high-availability.md").read_text(), "reason", "the replica")

    assert first_codes(rows) == [failure.value for failure in UpstreamFailure]


# Metrics.


def described(metrics: list[Metric]) -> dict[str, tuple[str, frozenset[str]]]:
    """Return type and labels by name. Families without samples know their labels themselves."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for metric in metrics:
        suffix = "_total" if metric.type == "counter" else ""
        labels = {label for sample in metric.samples for label in sample.labels}
        labels |= {*getattr(metric, "_labelnames", ())}
        found[metric.name + suffix] = (metric.type, frozenset(labels - {"le"}))
    return found


def documented(heading: str) -> dict[str, tuple[str, frozenset[str]]]:
    rows = table(section(METRICS, heading), "metric", "type", "labels", "meaning")
    return {codes(row[0])[0]: (row[1], frozenset(codes(row[2]))) for row in rows}


def test_the_usage_log_is_complete() -> None:
    text = (DOCS / "concepts/gateway-usage.md").read_text()
    [example] = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    logged = ["time", *re.findall(r'"(\w+)":', inspect.getsource(usage_log))]

    assert list(json.loads(example)) == logged
    assert set(first_codes(table(text, "field", "meaning"))) == set(logged)


async def test_the_balancers_metrics_are_complete() -> None:
    metrics = Metrics(Dispatcher[Any](QueueLimits()))
    metrics.add_listener(Server(lambda _: None).listener)
    metrics.add_prompts()
    metrics.add_priming()
    metrics.add_speculation(Guesses)

    assert documented("## Balancer") == described(list(metrics._registry.collect()))


async def test_the_gateways_metrics_are_complete() -> None:
    metrics = gateway_metrics.Metrics(list, lambda: iter(()), public_backends(time.monotonic))
    metrics.add_listener(Server(lambda _: None).listener)

    assert documented("## Gateway") == described(list(metrics._registry.collect()))


def test_the_metrics_of_batches_are_complete() -> None:
    metrics = batches_metrics.Metrics()

    assert documented("## Batches") == described(list(metrics._registry.collect()))


def test_the_operators_metrics_are_complete() -> None:
    registry = CollectorRegistry()
    metrics = operator_metrics.Metrics(registry, lambda: 0)
    snapshot = ScalingSnapshot(1, "Manual", 0, bounds=ReplicaBounds(1, 2, active=True))
    metrics.register(
        conflicts=lambda: 0,
        snapshots=lambda: [(Key("default", "chat"), snapshot)],
        unreadable=lambda: {"Pod": 1},
        leads=lambda: True,
        budget_waits=lambda: [(Key("default", "chat"), 1.0)],
        prefetches=lambda: {"Running": 1},
    )
    metrics.register_downloads(lambda: [(Key("default", "chat"), DownloadSample(2, 1, 0.0))])
    metrics.register_accelerators(lambda: {"NoDeviceFound": 1})
    metrics.count_reconcile(0.1, failed=False)
    metrics.count_correction("Service")
    metrics.count_suppressed_error("watch")
    metrics.set_conditions(KIND, Key("default", "chat"), [{"type": "Ready", "status": "True"}])
    metrics.count_decision(Key("default", "chat"), None, snapshot)

    assert documented("## Operator") == described(list(registry.collect()))


def test_each_metric_that_a_document_names_exists() -> None:
    existing = {
        *documented("## Balancer"),
        *documented("## Gateway"),
        *documented("## Batches"),
        *documented("## Operator"),
        *documented("## Node cache"),
        *documented("## Prompt files"),
        "slotkeeper_demand",  # prometheus-adapter's name for the sum
    }
    named = {
        word
        for document in DOCUMENTS
        for code in inline_code(document.read_text())
        for word in re.findall(r"\bslotkeeper_[a-z_]+", code)
    }

    assert len(named) > 25
    assert named <= existing


def test_the_states_of_a_batch_are_complete() -> None:
    page = (DOCS / "concepts/gateway-batches.md").read_text()
    rows = table(page, "`status` of a batch", "meaning")

    assert set(first_codes(rows)) == set(get_args(BatchStatus))


def test_the_outcomes_are_complete() -> None:
    outcome: type[Enum] = importlib.import_module("slotkeeper.edge.outcome").Outcome
    rows = table(METRICS, "outcome", "meaning")

    assert first_codes(rows) == [each.value for each in outcome]


def test_the_metrics_of_llama_server_are_complete() -> None:
    dispatcher: Dispatcher[Any] = Dispatcher(QueueLimits())
    local = LocalResponses(dispatcher, Model("tiny", 0))
    text = local.metrics({}, Tokens()).body.decode()
    rows = table(section(HTTP, "## Local paths"), "path", "response")
    [row] = [row for row in rows if codes(row[0]) == ["/metrics"]]

    assert set(codes(row[1])) >= set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


# Errors.


def errors(module: Path) -> Iterator[tuple[str, str]]:
    """Yield status and code of each HttpError that a module creates."""
    for function in ast.walk(ast.parse(module.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assigned: dict[str, list[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        assigned.setdefault(target.id, []).append(str(node.value.value))
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "HttpError"):
                continue
            status, code, *_ = node.args
            assert isinstance(status, ast.Constant), module
            if isinstance(code, ast.Constant):
                yield str(status.value), str(code.value)
            else:
                assert isinstance(code, ast.Name), module
                yield from ((str(status.value), each) for each in assigned[code.id])


def test_the_errors_are_complete() -> None:
    rows = table(ERRORS, "status", "code", "meaning", "what to do")
    created = {
        error
        for folder in ("balancer", "gateway", "batches", "edge", "wire")
        for module in (PACKAGE / folder).rglob("*.py")
        for error in errors(module)
    }

    assert len(created) > 15
    assert {(row[0], code) for row in rows for code in codes(row[1])} == created


# HTTP.


def test_the_proxied_paths_are_complete() -> None:
    shown = {
        Cost.GENERATION: "a slot; prefix cache",
        Cost.COMPUTATION: "a slot",
        Cost.NONE: "no slot",
    }
    rows = table(HTTP, "path", "in llama-server")

    assert {path: row[1] for row in rows for path in codes(row[0])} == {
        path: shown[cost] for path, cost in paths.PROXIED.items()
    }


def test_the_local_paths_are_complete() -> None:
    rows = table(section(HTTP, "## Local paths"), "path", "response")

    served = {path.decode() for path in routes._GET} | {f"{routes.MODEL_PATH.decode()}MODEL"}
    assert set(first_codes(rows)) == served


def test_the_pages_of_the_metrics_port_are_complete() -> None:
    [first, *_] = tables(section(HTTP, "## Metrics port"))
    pages = set(re.findall(r'b"(/[a-z/]+)"', inspect.getsource(admin)))

    assert set(first_codes(first[1:])) == {*pages, demand_report.PATH}


def test_the_demand_report_is_complete() -> None:
    text = section(HTTP, "### Demand report")
    [example] = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    report = replace(
        DemandReport.from_json(example),
        prompt_cache=PromptCacheReport(Reason.ACTIVE, ""),
        prime=PrimeReport(Reason.ACTIVE, ""),
        builds=("b1",),
        speculation=SpeculationReport(),
    )

    assert list(json.loads(example)) == list(report.to_json())
    assert DemandReport.from_json(example).peak_demand == 11
    assert first_codes(table(text, "field", "meaning")) == list(report.to_json())


def test_the_queue_page_is_complete() -> None:
    dispatcher: Dispatcher[Any] = Dispatcher(QueueLimits())
    dispatcher.add("10.0.0.7:8080", 0, 0.0)
    dispatcher.enqueue("request", 1, 0.0)
    page = json.loads(queue_page.queue(dispatcher, 1.0, leader=True).body)
    text = section(HTTP, "### Queue page")

    assert set(first_codes(table(text, "field", "meaning"))) == set(page)
    for part in ("byPriorityAndKey", "next", "replicas"):
        assert set(page[part][0]) <= set(codes(text)), part


def test_the_access_log_is_complete() -> None:
    sources = inspect.getsource(request_log) + inspect.getsource(access_log)
    logged = set(re.findall(r'"(\w+)":', sources))
    rows = [row for rows in tables(section(HTTP, "## Access log")) for row in rows[1:]]

    assert len(logged) > 15
    assert set(first_codes(rows)) == logged


def test_the_gateways_access_log_is_complete() -> None:
    text = section(HTTP, "## Gateway")
    source = inspect.getsource(gateway_request_log)
    shared = {"outcome", "code", "status"}

    assert set(first_codes(table(text, "field", "meaning"))) == (
        set(re.findall(r'"(\w+)":', source)) - shared
    )
    assert set(re.findall(r'b"(/[a-z]+)"', inspect.getsource(gateway_admin))) <= set(codes(text))


@pytest.mark.parametrize(
    "header", [wait_headers.QUEUE_POSITION.decode(), wait_headers.WAIT_SECONDS.decode()]
)
def test_the_response_headers_are_documented(header: str) -> None:
    assert header in first_codes(table(HTTP, "header", "in", "value"))


# Clients.


def test_the_table_of_clients_has_what_the_tests_prove() -> None:
    proven = proofs(Path(__file__).parents[1] / "clients")
    rows = table((DOCS / "clients.md").read_text(), "feature", *proven)

    assert [row[0] for row in rows] == list(FEATURES)
    for feature, *cells in rows:
        expected = ["✓" if feature in proven[client] else "" for client in proven]
        assert cells == expected, feature
