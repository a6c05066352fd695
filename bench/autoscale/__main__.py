"""Run the benchmark: `make bench-autoscale`, from the root of the repository."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

from bench.autoscale.frontier import cheapest, excess, one_for_all
from bench.autoscale.sweep import FIXED, LEAST, OURS, SCHEDULED, Case, Point, sweep
from bench.findings import Findings, Gate, Table, at_most, digits
from bench.report import as_json, markdown
from slotkeeper.simulation.generate import GENERATORS
from slotkeeper.simulation.reference_policies import PEERS

RESULTS = Path(__file__).resolve().parents[1] / "results"
TITLE = "The scaler beside others"
LOADS = (20.0, 120.0, 300.0)
GOALS = (0.95, 0.99)
USEFUL = 0.9
"""Where more than one call in ten waits, nobody compares prices."""

Found = Mapping[Case, Sequence[Point]]


def main(argv: Sequence[str]) -> int:
    """Play all and report; 0 where all was played, whether or not the gates are met."""
    given = _parser().parse_args(argv)
    began = time.monotonic()
    traces = ["burst"] if given.quick else list(GENERATORS)
    cases = [Case(trace, load) for trace in traces for load in LOADS]
    found = sweep(cases, few=given.quick)
    findings = [
        Findings(
            "autoscale",
            tables=[
                *(_table(case, points) for case, points in found.items()),
                *(_one_for_all(found, goal) for goal in GOALS),
            ],
            gates=[*_cheaper(found), *_frontiers(found)],
            raw={
                f"{case.trace} {case.load_seconds:g}": list(map(asdict, points))
                for case, points in found.items()
            },
        )
    ]
    about = {
        "command": " ".join(["python -m bench.autoscale", *argv]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}; time is "
        "simulated, so that it makes no figure",
        "commit": _said("git", "describe", "--always", "--dirty"),
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, findings, about)
    (RESULTS / "autoscale.md").write_text(text)
    (RESULTS / "autoscale.json").write_text(json.dumps(as_json(findings, about), indent=1))
    # Slow to import, and only needed here.
    from bench.autoscale.plots import draw  # noqa: PLC0415

    draw(found, RESULTS)
    print(text)
    return 0


def _table(case: Case, points: Sequence[Point]) -> Table:
    rows = []
    played = {point.system for point in points}
    for system in (each for each in (OURS, SCHEDULED, *PEERS, FIXED) if each in played):
        row = [system]
        for goal in GOALS:
            best = cheapest(points, system, goal)
            row += (
                [digits(best.ratio), f"{best.p99:.1f} s", str(best.changes), best.setting]
                if (best)
                else ["-", "", "", f"{100 * _most(points, system):.1f} % at most"]
            )
        rows.append(tuple(row))
    columns = tuple(
        f"{100 * goal:g} %: {what}" for goal in GOALS for what in ("cost", "p99", "changes", "set")
    )
    return Table(f"{case.trace}, {case.load_seconds:g} s to load", ("system", *columns), rows)


def _one_for_all(found: Found, goal: float) -> Table:
    systems = (OURS, *PEERS, FIXED)
    # Where nobody is as good, nobody's setting is at fault; bursts ask for a minReplicas.
    cases = {
        case: points
        for case, points in found.items()
        if case.trace not in LEAST
        and any(cheapest(points, system, goal) for system in (OURS, *PEERS))
    }
    rows = []
    for system in systems if cases else ():
        best = one_for_all(cases, system, goal)
        rows.append((system, f"{best.reached} of {len(cases)}", digits(best.ratio), best.setting))
    title = f"one setting for all but bursts, {100 * goal:g} %"
    return Table(title, ("system", "reached", "mean cost", "set"), rows)


def _most(points: Sequence[Point], system: str) -> float:
    return max(point.good for point in points if point.system == system)


def _cheaper(found: Found) -> list[Gate]:
    gates = []
    for case, points in found.items():
        played = {point.system for point in points}
        for goal, own in product(GOALS, (OURS, SCHEDULED)):
            if own in played:
                gates.append(_cheaper_than_all(case, points, own, goal))
    return gates


def _cheaper_than_all(case: Case, points: Sequence[Point], own: str, goal: float) -> Gate:
    name = f"{case.trace}, {case.load_seconds:g} s, {100 * goal:g} %: {own}, x the best peer"
    best = [found.ratio for peer in PEERS if (found := cheapest(points, peer, goal))]
    found = cheapest(points, own, goal)
    if not best:
        return Gate(name, "<= 0.8", "no peer reaches it", None)
    if not found:
        return Gate(name, "<= 0.8", "not reached", False)
    return at_most(name, found.ratio / min(best), 0.8)


def _frontiers(found: Found) -> list[Gate]:
    gates = []
    for case, points in found.items():
        for peer in PEERS:
            name = f"{case.trace}, {case.load_seconds:g} s: x the frontier of {peer}, at its worst"
            most = excess(points, OURS, peer, USEFUL)
            gates.append(
                Gate(name, "<= 1", f"it never reaches {100 * USEFUL:g} %", None)
                if most is None
                else at_most(name, most, 1.0)
            )
    return gates


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.autoscale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures say little")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
