"""Runs the benchmark: `make bench-reconcile`, from the root of the repository.

Each run has its own cluster `bench`: a real etcd, kube-apiserver, controller manager and scheduler,
and nodes simulated by kwok.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.findings import Findings, Gate, Plot, Table, at_most, digits
from bench.report import as_json, markdown
from provider import builds
from provider.paths import ClusterPaths
from stack import Cluster

RESULTS = Path(__file__).resolve().parents[1] / "results"
TITLE = "The operator compared with a plain client"
NAME = "bench"

Run = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Measure and report; return 0 if all was measured, whether or not the gates are met."""
    options = _parser().parse_args(argv)
    sizes = options.sizes or ([10, 20] if options.quick else [100, 300, 1000])
    began = time.monotonic()
    baseline: dict[int, list[Run]] = {size: [] for size in sizes}
    operator: dict[int, list[Run]] = {size: [] for size in sizes}
    systems = {"baseline": baseline, "operator": operator}
    for size in sizes:
        rounds = options.rounds if size == sizes[-1] else 1
        for number in range(rounds):
            # The first one runs on a cooler machine, so the order alternates.
            for system in systems if number % 2 == 0 else reversed(systems):
                systems[system][size].append(_run(system, size, quick=options.quick))
                minutes = (time.monotonic() - began) / 60
                print(
                    f"{system}, {size} servers: done after {minutes:.1f} minutes",
                    file=sys.stderr,
                    flush=True,
                )
    findings = [_findings(baseline, operator)]
    environment = {
        "command": " ".join(["python -m bench.reconcile", *argv]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, shared with "
        "the API server, etcd, controllers, scheduler and kwok",
        "commit": _output("git", "describe", "--always", "--dirty"),
        "duration": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, findings, environment)
    (RESULTS / "reconcile.md").write_text(text)
    (RESULTS / "reconcile.json").write_text(json.dumps(as_json(findings, environment), indent=1))
    # matplotlib takes long to import and is needed only here.
    from bench.plots import draw  # noqa: PLC0415

    for plot in findings[0].plots:
        draw(plot, RESULTS)
    print(text)
    return 0


def _run(system: str, size: int, *, quick: bool) -> Run:
    """Measure one system with `size` servers on a new cluster."""
    kwok = str(builds.program("kwok"))
    kubectl = str(builds.program("kubectl"))
    cluster = Cluster(NAME)
    paths = ClusterPaths(NAME)
    cluster.call("down")
    cluster.call("up")
    edits, idle = (5, 15.0) if quick else (min(200, size), 120.0)
    try:
        output = cluster.read(
            *("run", sys.executable, "-m", "bench.reconcile.run_in_cluster", system),
            *("--servers", str(size), "--edits", str(edits), "--idle-seconds", str(idle)),
            *("--kwok", kwok, "--kubectl", kubectl),
            *("--audit-log", str(paths.logs / "audit.log"), "--logs", str(paths.logs)),
        )
    except RuntimeError:
        print(f"logs are kept in {paths.logs}", file=sys.stderr)
        raise
    cluster.call("down")
    run: Run = json.loads(output.splitlines()[-1])
    return run


def _findings(baseline: dict[int, list[Run]], operator: dict[int, list[Run]]) -> Findings:
    largest = max(operator)
    ratios = {
        size: [
            run["seconds"] / base["seconds"]
            for run, base in zip(operator[size], baseline[size], strict=True)
        ]
        for size in operator
    }
    runs = operator[largest]
    edits = [_p99(run["edits"]) for run in runs]
    return Findings(
        "reconcile",
        tables=[_times(baseline, operator), _costs(operator), _idle(operator)],
        gates=[
            at_most(f"children of {largest} servers, × client", median(ratios[largest]), 1.3),
            at_most(f"memory, {largest} servers", max(run["megabytes"] for run in runs), 150, "MB"),
            at_most(f"p99 of an edit, {largest} servers", max(edits), 1.0, "s"),
            _none("writes when idle", [run["writes_when_idle"] for run in runs]),
            _none("writes after a restart", [run["writes_after_restart"] for run in runs]),
        ],
        plots=[
            Plot(
                "reconcile-seconds",
                "Time until all children exist",
                "seconds",
                {
                    "slotkeeper": _by_size(operator, "seconds"),
                    "plain client": _by_size(baseline, "seconds"),
                },
            ),
            Plot(
                "reconcile-memory",
                "Memory of the operator",
                "MB",
                {"slotkeeper": _by_size(operator, "megabytes")},
            ),
        ],
        raw={"baseline": baseline, "operator": operator},
    )


def _times(baseline: dict[int, list[Run]], operator: dict[int, list[Run]]) -> Table:
    rows = [
        (
            str(size),
            str(base["manifests"]),
            f"{digits(base['seconds'])} s",
            f"{digits(run['apply_seconds'])} s",
            f"{digits(run['seconds'])} s",
            digits(run["seconds"] / base["seconds"]),
            digits((run["apply_seconds"] + run["seconds"]) / base["seconds"]),
        )
        for size in operator
        for base, run in zip(baseline[size], operator[size], strict=True)
    ]
    return Table(
        "Time until all children exist",
        (
            "servers",
            "children",
            "plain client",
            "applying servers",
            "operator",
            "ratio",
            "ratio from first server",
        ),
        rows,
        "The plain client applies the operator's manifests for existing servers, with as many "
        "concurrent requests as the operator has workers. *operator* is measured from when the "
        "last server was applied, *ratio from first server* from when the first one was.",
    )


def _costs(operator: dict[int, list[Run]]) -> Table:
    rows = [
        (
            str(size),
            f"{digits(run['megabytes_empty'])} MB",
            f"{digits(run['megabytes'])} MB",
            f"{digits(run['megabytes_peak'])} MB",
            f"{digits(run['cpu_seconds'])} s",
            f"{digits(median(run['edits']))} s",
            f"{digits(_p99(run['edits']))} s",
        )
        for size in operator
        for run in operator[size]
    ]
    return Table(
        "Memory, CPU, edits",
        (
            "servers",
            "memory without servers",
            "idle",
            "peak",
            "CPU until idle",
            "edit p50",
            "edit p99",
        ),
        rows,
        "An edit changes contextPerSlot of one server; two edits a second, of different servers.",
    )


def _idle(operator: dict[int, list[Run]]) -> Table:
    rows = [
        (
            str(size),
            _counts(run["writes_when_idle"]),
            _counts(run["writes_after_restart"]),
            digits(sum(run["requests_when_idle"].values())),
            ", ".join(f"{kind} {digits(rate)}" for kind, rate in run["requests_when_idle"].items()),
            f"{100 * run['cpu_when_idle']:.0f} %",
        )
        for size in operator
        for run in operator[size]
    ]
    return Table(
        "Idle",
        ("servers", "writes", "writes after a restart", "requests a minute", "by kind", "CPU"),
        rows,
        "From the API server's audit log, without writes to the operator's own Lease.",
    )


def _none(name: str, counts: list[dict[str, int]]) -> Gate:
    total = sum(sum(each.values()) for each in counts)
    return Gate(name, "0", str(total), total == 0)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "0"


def _by_size(runs: dict[int, list[Run]], field: str) -> dict[str, float]:
    return {str(size): median(run[field] for run in each) for size, each in runs.items()}


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[-1]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.reconcile", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short smoke test, whose numbers are meaningless"
    )
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of servers, one run for each")
    parser.add_argument(
        "--rounds", type=int, default=1, help="runs of the largest size (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
