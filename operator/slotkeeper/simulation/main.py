"""`slotkeeper what-if`: what a policy would have made of a trace."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.api.server import InvalidSpec, LlamaServer
from slotkeeper.simulation import report
from slotkeeper.simulation.pipe import ignore_broken_pipe
from slotkeeper.simulation.reference_policies import PEERS, PolicyBounds
from slotkeeper.simulation.simulate import Outcome, ReplicaModel, Simulation
from slotkeeper.simulation.slotkeeper_policy import Slots
from slotkeeper.simulation.trace import TraceError, TraceRequest, read

MONDAY = "2026-01-05T00:00:00+00:00"


class PolicyError(Exception):
    """A policy that cannot be played; the message says why."""


def main(argv: Sequence[str]) -> int:
    """Play the trace against the policy and its peers; 0, or 2 where a file cannot be used."""
    given = _parser().parse_args(argv)
    try:
        calls = _calls(given.trace)
        server, scaling = _policy(given.policy)
    except (TraceError, PolicyError) as error:
        print(f"slotkeeper what-if: {error}", file=sys.stderr)
        return 2
    ours = Slots(server.spec.slots, scaling, given.begin)
    least, most = scaling.bounds(None)
    first = max(least, 1)
    replicas = ReplicaModel(server.spec.slots, given.load_seconds, first)
    outcomes = {server.name: Simulation(replicas, ours).run(calls)}
    bounds = PolicyBounds(server.spec.slots, first, most)
    for name, target in given.compare:
        scaler = PEERS[name].make(target, bounds)
        outcomes[f"{name}={target:g}"] = Simulation(replicas, scaler).run(calls)
    with ignore_broken_pipe():
        if given.json:
            print(json.dumps({name: _as_json(each) for name, each in outcomes.items()}, indent=1))
        else:
            print(_about(calls, replicas, least, most), report.table(outcomes), sep="\n\n")
        if given.events and not given.json:
            lines = (f"{report.clock(at)}  {said.message}" for at, said in ours.decisions)
            print("", f"{server.name}:", *lines, sep="\n")
    if given.plot:
        try:
            report.draw(outcomes, given.plot)
        except ImportError:
            print("--plot takes matplotlib: pip install matplotlib", file=sys.stderr)
            return 2
    return 0


def _about(calls: Sequence[TraceRequest], replicas: ReplicaModel, least: int, most: int) -> str:
    return (
        f"{len(calls)} requests in {report.clock(calls[-1].at)}, a slot for "
        f"{sum(call.seconds for call in calls) / len(calls):.1f} s each; {replicas.slots} slots a "
        f"replica, {least} to {most} replicas that take {replicas.load_seconds:g} s to load. "
        "Seconds are those until a request got a slot."
    )


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "waits": {f"p{p}": report.percentile(outcome.waits, p) for p in (50, 95, 99, 100)},
        "withinOneSecond": report.share_within(outcome.waits, 1),
        "replicaSeconds": outcome.replica_seconds,
        "replicas": outcome.changes,
    }


def _calls(path: Path) -> list[TraceRequest]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return read(lines)
    except (OSError, UnicodeDecodeError, TraceError) as error:
        raise TraceError(f"{path}: {error}") from None


def _policy(path: Path) -> tuple[LlamaServer, Autoscaling]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"{path}: {error}") from None
    if not isinstance(raw, Mapping) or raw.get("kind") != "LlamaServer":
        raise PolicyError(f"{path}: must be one LlamaServer, as it is applied")
    metadata = {"name": path.stem, "namespace": "", "uid": "", **(raw.get("metadata") or {})}
    try:
        server = LlamaServer.parse({**raw, "metadata": metadata})
    except InvalidSpec as error:
        raise PolicyError(f"{path}: {error}") from None
    if server.spec.autoscaling is None:
        raise PolicyError(f"{path}: set spec.autoscaling: without it nothing scales the server")
    return server, server.spec.autoscaling


def _compared(text: str) -> list[tuple[str, float]]:
    found = []
    for part in text.split(","):
        name, _, target = part.partition("=")
        if name not in PEERS:
            known = ", ".join(PEERS)
            raise argparse.ArgumentTypeError(f"{name!r} is none of {known}")
        found.append((name, _positive(target) if target else PEERS[name].target))
    return found


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return number


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper what-if",
        description="Play a trace of requests against a LlamaServer's autoscaling, in simulated "
        "time: how long they would have waited, and what it would have cost.",
        epilog="peers, each with its target in parts of what one replica does at a time: "
        + "; ".join(f"{name}={peer.target:g} ({peer.about})" for name, peer in PEERS.items()),
    )
    add = parser.add_argument
    add("--trace", type=Path, required=True, metavar="T.csv", help="see `slotkeeper trace`")
    add("--policy", type=Path, required=True, metavar="P.yaml", help="a LlamaServer")
    add(
        "--compare",
        type=_compared,
        default=[],
        metavar="PEER[=TARGET],…",
        help="play it against these ways to scale, too",
    )
    add(
        "--load-seconds",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="from a replica's creation until it is ready (default: 60)",
    )
    add(
        "--begin",
        type=_time,
        default=_time(MONDAY),
        metavar="TIME",
        help="when the trace begins, for schedules (default: a Monday, 0:00 UTC)",
    )
    add("--events", action="store_true", help="print each change of the replicas, and why")
    add("--json", action="store_true", help="print figures as JSON")
    add("--plot", type=Path, metavar="FILE.png", help="draw replicas and waits")
    return parser
