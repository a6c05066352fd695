"""Run the benchmark: `make bench-reconcile`, from the root of the repository.

Each run has a cluster of its own, `bench`: a real etcd, kube-apiserver, controller manager and
scheduler, and nodes that kwok plays.
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
TITLE = "The operator beside a plain client"
NAME = "bench"

Run = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Measure and report; 0 where all was measured, whether or not the gates are met."""
    given = _parser().parse_args(argv)
    sizes = given.sizes or ([10, 20] if given.quick else [100, 300, 1000])
    began = time.monotonic()
    floors: dict[int, list[Run]] = {size: [] for size in sizes}
    found: dict[int, list[Run]] = {size: [] for size in sizes}
    for size in sizes:
        rounds = given.rounds if size == sizes[-1] else 1
        for number in range(rounds):
            # Whichever comes first finds the machine cooler: they take turns.
            for system in ("floor", "ours") if number % 2 == 0 else ("ours", "floor"):
                run = _run(system, size, quick=given.quick)
                (floors if system == "floor" else found)[size].append(run)
                minutes = (time.monotonic() - began) / 60
                print(f"{system} {size}: {minutes:.1f} minutes", file=sys.stderr, flush=True)
    findings = [_findings(floors, found)]
    about = {
        "command": " ".join(["python -m bench.reconcile", *argv]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}; the API "
        "server, etcd, controllers, scheduler and kwok run on them too",
        "commit": _said("git", "describe", "--always", "--dirty"),
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, findings, about)
    (RESULTS / "reconcile.md").write_text(text)
    (RESULTS / "reconcile.json").write_text(json.dumps(as_json(findings, about), indent=1))
    # Slow to import, and only needed here.
    from bench.plots import draw  # noqa: PLC0415

    for plot in findings[0].plots:
        draw(plot, RESULTS)
    print(text)
    return 0


def _run(system: str, size: int, *, quick: bool) -> Run:
    """One run on a cluster of its own."""
    kwok = str(builds.program("kwok"))
    kubectl = str(builds.program("kubectl"))
    cluster = Cluster(NAME)
    paths = ClusterPaths(NAME)
    cluster.call("down")
    cluster.call("up")
    edits, rest = (5, 15.0) if quick else (min(200, size), 120.0)
    try:
        said = cluster.read(
            *("run", sys.executable, "-m", "bench.reconcile.inside", system),
            *("--servers", str(size), "--edits", str(edits), "--rest", str(rest)),
            *("--kwok", kwok, "--kubectl", kubectl),
            *("--audit", str(paths.logs / "audit.log"), "--logs", str(paths.logs)),
        )
    except RuntimeError:
        print(f"the logs stay in {paths.logs}", file=sys.stderr)
        raise
    cluster.call("down")
    run: Run = json.loads(said.splitlines()[-1])
    return run


def _findings(floors: dict[int, list[Run]], found: dict[int, list[Run]]) -> Findings:
    largest = max(found)
    ratios = {
        size: [
            ours["seconds"] / floor["seconds"]
            for ours, floor in zip(found[size], floors[size], strict=True)
        ]
        for size in found
    }
    most = found[largest]
    edits = [_p99(run["edits"]) for run in most]
    return Findings(
        "reconcile",
        tables=[_times(floors, found), _costs(found), _rest(found)],
        gates=[
            at_most(f"children of {largest}, x a plain client", median(ratios[largest]), 1.3),
            at_most(f"memory at {largest}", max(run["megabytes"] for run in most), 150, "MB"),
            at_most(f"p99 of an edit at {largest}", max(edits), 1.0, "s"),
            _none("writes at rest", [run["writes_at_rest"] for run in most]),
            _none("writes after a restart", [run["writes_after_restart"] for run in most]),
        ],
        plots=[
            Plot(
                "reconcile-seconds",
                "Until all children are there",
                "seconds",
                {
                    "slotkeeper": _by_size(found, "seconds"),
                    "plain client": _by_size(floors, "seconds"),
                },
            ),
            Plot(
                "reconcile-memory",
                "The operator's memory",
                "MB",
                {"slotkeeper": _by_size(found, "megabytes")},
            ),
        ],
        raw={"floor": floors, "ours": found},
    )


def _times(floors: dict[int, list[Run]], found: dict[int, list[Run]]) -> Table:
    rows = [
        (
            str(size),
            str(floor["manifests"]),
            f"{digits(floor['seconds'])} s",
            f"{digits(ours['applying'])} s",
            f"{digits(ours['seconds'])} s",
            digits(ours["seconds"] / floor["seconds"]),
            digits((ours["applying"] + ours["seconds"]) / floor["seconds"]),
        )
        for size in found
        for floor, ours in zip(floors[size], found[size], strict=True)
    ]
    return Table(
        "From the last server to the last child",
        ("servers", "children", "plain client", "applying", "operator", "ratio", "ratio, all"),
        rows,
        "The plain client applies the operator's manifests for servers that are there already, as "
        "many at the same time as the operator has workers. *Operator* begins when the last server "
        "is applied; *ratio, all* counts from the first one.",
    )


def _costs(found: dict[int, list[Run]]) -> Table:
    rows = [
        (
            str(size),
            f"{digits(run['megabytes_empty'])} MB",
            f"{digits(run['megabytes'])} MB",
            f"{digits(run['megabytes_highest'])} MB",
            f"{digits(run['cpu_seconds'])} s",
            f"{digits(median(run['edits']))} s",
            f"{digits(_p99(run['edits']))} s",
        )
        for size in found
        for run in found[size]
    ]
    return Table(
        "Memory, CPU, edits",
        ("servers", "empty", "at rest", "highest", "CPU until rest", "edit p50", "edit p99"),
        rows,
        "An edit changes contextPerSlot of one server; two a second, each of another server.",
    )


def _rest(found: dict[int, list[Run]]) -> Table:
    rows = [
        (
            str(size),
            _counted(run["writes_at_rest"]),
            _counted(run["writes_after_restart"]),
            digits(sum(run["requests_at_rest"].values())),
            ", ".join(f"{what} {digits(many)}" for what, many in run["requests_at_rest"].items()),
            f"{100 * run['cpu_at_rest']:.0f} %",
        )
        for size in found
        for run in found[size]
    ]
    return Table(
        "At rest",
        ("servers", "writes", "writes after a restart", "requests a minute", "of them", "CPU"),
        rows,
        "From the API server's audit log; the operator's own Lease is not among the writes.",
    )


def _none(name: str, counts: list[dict[str, int]]) -> Gate:
    total = sum(sum(each.values()) for each in counts)
    return Gate(name, "0", str(total), total == 0)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {many}" for what, many in counts.items()) or "0"


def _by_size(runs: dict[int, list[Run]], field: str) -> dict[str, float]:
    return {str(size): median(run[field] for run in each) for size, each in runs.items()}


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[-1]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.reconcile", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures say nothing")
    parser.add_argument("--sizes", type=int, nargs="+", help="servers in each run")
    parser.add_argument("--rounds", type=int, default=1, help="of the largest size")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
