"""Run the autoscaler benchmark: `make bench-autoscale`, from the root of the repository."""

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

from bench.autoscale.frontier import best_single_setting, cheapest, excess
from bench.autoscale.sweep import FIXED, MIN_REPLICAS, SCHEDULED, SLOTKEEPER, Case, Point, sweep
from bench.findings import Findings, Gate, Table, at_most, digits
from bench.report import as_json, markdown
from slotkeeper.simulation.generate import GENERATORS
from slotkeeper.simulation.reference_policies import REFERENCE_POLICIES

RESULTS = Path(__file__).resolve().parents[1] / "results"
TITLE = "Autoscaler benchmark"
LOAD_SECONDS = (20.0, 120.0, 300.0)
SERVICE_LEVELS = (0.95, 0.99)
MIN_SERVICE_LEVEL = 0.9
"""Points below it are not compared: more than one request in ten waits for over a second."""

Results = Mapping[Case, Sequence[Point]]


def main(argv: Sequence[str]) -> int:
    """Simulate all cases and report; return 0 whether or not the gates are met."""
    arguments = _parser().parse_args(argv)
    began = time.monotonic()
    traces = ["burst"] if arguments.quick else list(GENERATORS)
    cases = [Case(trace, load_seconds) for trace in traces for load_seconds in LOAD_SECONDS]
    results = sweep(cases, few=arguments.quick)
    findings = [
        Findings(
            "autoscale",
            tables=[
                *(_table(case, points) for case, points in results.items()),
                *(_single_setting_table(results, level) for level in SERVICE_LEVELS),
            ],
            gates=[*_cost_gates(results), *_frontier_gates(results)],
            raw={
                f"{case.trace} {case.load_seconds:g}": list(map(asdict, points))
                for case, points in results.items()
            },
        )
    ]
    about = {
        "command": " ".join(["python -m bench.autoscale", *argv]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}; time is "
        "simulated, so no figure depends on it",
        "commit": _output("git", "describe", "--always", "--dirty"),
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, findings, about)
    (RESULTS / "autoscale.md").write_text(text)
    (RESULTS / "autoscale.json").write_text(json.dumps(as_json(findings, about), indent=1))
    # Slow to import, and only needed here.
    from bench.autoscale.plots import plot  # noqa: PLC0415

    plot(results, RESULTS)
    print(text)
    return 0


def _table(case: Case, points: Sequence[Point]) -> Table:
    rows = []
    simulated = {point.system for point in points}
    systems = (SLOTKEEPER, SCHEDULED, *REFERENCE_POLICIES, FIXED)
    for system in (each for each in systems if each in simulated):
        row = [system]
        for level in SERVICE_LEVELS:
            best = cheapest(points, system, level)
            row += (
                [digits(best.cost_ratio), f"{best.p99:.1f} s", str(best.changes), best.setting]
                if best
                else ["-", "", "", f"{100 * _max_service_level(points, system):.1f} % at most"]
            )
        rows.append(tuple(row))
    columns = tuple(
        f"{100 * level:g} %: {column}"
        for level in SERVICE_LEVELS
        for column in ("cost", "p99", "changes", "setting")
    )
    return Table(f"{case.trace}, {case.load_seconds:g} s to load", ("system", *columns), rows)


def _single_setting_table(results: Results, level: float) -> Table:
    systems = (SLOTKEEPER, *REFERENCE_POLICIES, FIXED)
    # Left out: cases in which no scaler reaches the level, whatever its setting, and bursts, which
    # require a minReplicas.
    cases = {
        case: points
        for case, points in results.items()
        if case.trace not in MIN_REPLICAS
        and any(cheapest(points, system, level) for system in (SLOTKEEPER, *REFERENCE_POLICIES))
    }
    rows = []
    for system in systems if cases else ():
        best = best_single_setting(cases, system, level)
        reached = f"{best.reached} of {len(cases)}"
        rows.append((system, reached, digits(best.cost_ratio), best.setting))
    title = f"one setting for all traces but bursts, {100 * level:g} %"
    return Table(title, ("system", "reached", "mean cost", "setting"), rows)


def _max_service_level(points: Sequence[Point], system: str) -> float:
    return max(point.service_level for point in points if point.system == system)


def _cost_gates(results: Results) -> list[Gate]:
    gates = []
    for case, points in results.items():
        simulated = {point.system for point in points}
        for level, own in product(SERVICE_LEVELS, (SLOTKEEPER, SCHEDULED)):
            if own in simulated:
                gates.append(_cost_gate(case, points, own, level))
    return gates


def _cost_gate(case: Case, points: Sequence[Point], own: str, level: float) -> Gate:
    where = f"{case.trace}, {case.load_seconds:g} s, {100 * level:g} %"
    name = f"{where}: {own}, x the best reference policy"
    references = [
        best.cost_ratio
        for system in REFERENCE_POLICIES
        if (best := cheapest(points, system, level))
    ]
    own_best = cheapest(points, own, level)
    if not references:
        return Gate(name, "<= 0.8", "not reached by any reference policy", None)
    if not own_best:
        return Gate(name, "<= 0.8", "not reached", False)
    return at_most(name, own_best.cost_ratio / min(references), 0.8)


def _frontier_gates(results: Results) -> list[Gate]:
    gates = []
    for case, points in results.items():
        for system in REFERENCE_POLICIES:
            where = f"{case.trace}, {case.load_seconds:g} s"
            name = f"{where}: maximum x the frontier of {system}"
            maximum = excess(points, SLOTKEEPER, system, MIN_SERVICE_LEVEL)
            gates.append(
                Gate(name, "<= 1", f"it never reaches {100 * MIN_SERVICE_LEVEL:g} %", None)
                if maximum is None
                else at_most(name, maximum, 1.0)
            )
    return gates


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.autoscale", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smoke test: one trace, one setting per system"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
