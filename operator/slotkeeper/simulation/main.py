"""`slotkeeper what-if`: simulate an autoscaling policy on a request trace."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.server import LlamaServer
from slotkeeper.error_text import describe
from slotkeeper.simulation import report
from slotkeeper.simulation.pipe import ignore_broken_pipe
from slotkeeper.simulation.reference_policies import REFERENCE_POLICIES, PolicyBounds
from slotkeeper.simulation.simulate import ReplicaModel, Simulation, SimulationResult
from slotkeeper.simulation.slotkeeper_policy import SlotkeeperScaler
from slotkeeper.simulation.trace import TraceError, TraceRequest, read

MONDAY = "2026-01-05T00:00:00+00:00"


class PolicyError(Exception):
    """A policy file that cannot be used; the message states why."""


def main(argv: Sequence[str]) -> int:
    """Simulate the policies and print the results; return 0, or 2 if a file cannot be used."""
    arguments = _parser().parse_args(argv)
    try:
        requests = _requests(arguments.trace)
        server, scaling = _server(arguments.policy)
    except (TraceError, PolicyError) as error:
        print(f"slotkeeper what-if: {error}", file=sys.stderr)
        return 2
    slots = server.spec.slots
    min_replicas, max_replicas = scaling.bounds(None)
    initial_replicas = max(min_replicas, 1)
    model = ReplicaModel(slots, arguments.load_seconds, initial_replicas)
    scaler = SlotkeeperScaler(slots, scaling, arguments.begin)
    results = {server.name: Simulation(model, scaler).run(requests)}
    bounds = PolicyBounds(slots, initial_replicas, max_replicas)
    for name, target in arguments.compare:
        reference = REFERENCE_POLICIES[name].create(target, bounds)
        results[f"{name}={target:g}"] = Simulation(model, reference).run(requests)
    with ignore_broken_pipe():
        if arguments.json:
            print(json.dumps({name: _as_json(each) for name, each in results.items()}, indent=1))
        else:
            summary = _summary(requests, model, min_replicas, max_replicas)
            print(summary, report.table(results), sep="\n\n")
        if arguments.events and not arguments.json:
            lines = (
                f"{report.format_time(at)}  {decision.message}" for at, decision in scaler.decisions
            )
            print("", f"{server.name}:", *lines, sep="\n")
    if arguments.plot:
        try:
            report.plot(results, arguments.plot)
        except ImportError:
            print(
                "slotkeeper what-if: --plot requires matplotlib: run pip install matplotlib",
                file=sys.stderr,
            )
            return 2
    return 0


def _summary(
    requests: Sequence[TraceRequest], model: ReplicaModel, min_replicas: int, max_replicas: int
) -> str:
    mean_service_seconds = sum(each.service_seconds for each in requests) / len(requests)
    return (
        f"{len(requests)} requests in {report.format_time(requests[-1].at)}, mean service time "
        f"{mean_service_seconds:.1f} s; {model.slots} slots per replica, {min_replicas} to "
        f"{max_replicas} replicas, {model.load_seconds:g} s to load. p50 to max: queue wait; "
        "<= 1 s: requests that waited up to 1 s; up, down: scale-ups and scale-downs."
    )


def _as_json(result: SimulationResult) -> dict[str, Any]:
    return {
        "waits": {f"p{p}": report.percentile(result.waits, p) for p in (50, 95, 99, 100)},
        "withinOneSecond": report.share_within(result.waits, 1),
        "replicaSeconds": result.replica_seconds,
        "replicas": result.changes,
    }


def _requests(path: Path) -> list[TraceRequest]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return read(lines)
    except (OSError, UnicodeDecodeError, TraceError) as error:
        raise TraceError(f"{path}: {describe(error)}") from None


def _server(path: Path) -> tuple[LlamaServer, Autoscaling]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"{path}: {describe(error)}") from None
    if not isinstance(raw, Mapping) or raw.get("kind") != "LlamaServer":
        raise PolicyError(f"{path}: must be the manifest of one LlamaServer")
    metadata = {"name": path.stem, "namespace": "", "uid": "", **(raw.get("metadata") or {})}
    try:
        server = LlamaServer.parse({**raw, "metadata": metadata})
    except InvalidSpec as error:
        raise PolicyError(f"{path}: {error}") from None
    if server.spec.autoscaling is None:
        raise PolicyError(f"{path}: spec.autoscaling is not set: set it to simulate autoscaling")
    return server, server.spec.autoscaling


def _compare(text: str) -> list[tuple[str, float]]:
    policies = []
    for part in text.split(","):
        name, _, target = part.partition("=")
        if name not in REFERENCE_POLICIES:
            names = ", ".join(REFERENCE_POLICIES)
            raise argparse.ArgumentTypeError(f"unknown policy {name!r}: must be one of {names}")
        default = REFERENCE_POLICIES[name].default_target
        policies.append((name, _positive(target) if target else default))
    return policies


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number greater than 0, not {text}")
    return number


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an ISO 8601 time, not {text!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper what-if",
        description="Simulate a LlamaServer's autoscaling on a request trace, in simulated time: "
        "how long requests would have been queued, and how many replica-hours it would have cost.",
        epilog="policies to compare with, and their default targets as a share of a replica's "
        "slots: "
        + "; ".join(
            f"{name}={policy.default_target:g} ({policy.description})"
            for name, policy in REFERENCE_POLICIES.items()
        ),
    )
    add = parser.add_argument
    add(
        "--trace",
        type=Path,
        required=True,
        metavar="TRACE.csv",
        help="request trace; see `slotkeeper trace`",
    )
    add(
        "--policy",
        type=Path,
        required=True,
        metavar="SERVER.yaml",
        help="manifest of a LlamaServer with spec.autoscaling",
    )
    add(
        "--compare",
        type=_compare,
        default=[],
        metavar="POLICY[=TARGET],…",
        help="simulate these policies, too",
    )
    add(
        "--load-seconds",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="time from a replica's creation until it is ready (default: 60)",
    )
    add(
        "--begin",
        type=_time,
        default=_time(MONDAY),
        metavar="TIME",
        help="when the trace begins, for schedules (default: a Monday, 0:00 UTC)",
    )
    add("--events", action="store_true", help="print each scaling decision and its reason")
    add("--json", action="store_true", help="print the results as JSON")
    add("--plot", type=Path, metavar="FILE.png", help="plot replicas and queue waits")
    return parser
