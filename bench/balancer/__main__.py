"""Run the benchmark: `python -m bench.balancer`, from the root of the repository."""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench.balancer import (
    measure_bodies,
    measure_changes,
    measure_memory,
    measure_queue,
    measure_requests,
    measure_streams,
    measure_warm,
)
from bench.balancer.rounds import FULL, QUICK, Scale
from bench.findings import Findings
from bench.processes import allow_many_files
from bench.report import as_json, markdown

RESULTS = Path(__file__).resolve().parents[1] / "results"

MEASURES: dict[str, Callable[[Scale], Awaitable[Findings]]] = {
    "requests": measure_requests.measure,
    "streams": measure_streams.measure,
    "queue": measure_queue.measure,
    "warm": measure_warm.measure,
    "changes": measure_changes.measure,
    "bodies": measure_bodies.measure,
    "memory": measure_memory.measure,
}


def main(argv: Sequence[str]) -> int:
    """Measure and report; 0 where all was measured, whether or not the gates are met."""
    given = _parser().parse_args(argv)
    missing = [name for name in ("nginx", "haproxy") if not shutil.which(name)]
    if missing:
        print(
            f"missing: {', '.join(missing)}. Install with: "
            "apt-get install --no-install-recommends nginx-light haproxy",
            file=sys.stderr,
        )
        return 1
    allow_many_files()
    print(asyncio.run(_measure(given)))
    print(f"written to {given.to}")
    return 0


async def _measure(given: argparse.Namespace) -> str:
    """Measure, and write what there is after each measure: the next one may fail."""
    began = time.monotonic()
    about = _about()
    findings: list[Findings] = []
    text = ""
    for name in given.only or MEASURES:
        findings.append(await MEASURES[name](QUICK if given.quick else FULL))
        about["took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
        print(f"{name} is measured, {about['took']}", file=sys.stderr, flush=True)
        text = _write(findings, about, given.to, plots=given.plots)
    return text


def _write(
    findings: Sequence[Findings], about: Mapping[str, str], folder: Path, *, plots: bool
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown("The balancer beside its peers", findings, about)
    (folder / "balancer.md").write_text(text)
    (folder / "balancer.json").write_text(json.dumps(as_json(findings, about), indent=1))
    if plots:
        # Slow to import, and only needed here.
        from bench.plots import draw  # noqa: PLC0415

        for plot in findings[-1].plots:
            draw(plot, folder)
    return text


def _about() -> dict[str, str]:
    nginx = _said("nginx", "-v").rpartition("/")[2]
    haproxy = _said("haproxy", "-v").split()[2]
    return {
        "command": " ".join(["python -m bench.balancer", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, loopback, "
        f"load {os.getloadavg()[0]:.1f} before",
        "peers": f"nginx {nginx}, HAProxy {haproxy}, Python {platform.python_version()}",
        "commit": _said("git", "describe", "--always", "--dirty"),
    }


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.balancer",
        description="Measures the balancer beside nginx, HAProxy, random and round robin choice "
        "and direct connections: all in each round, medians of what each round says.",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures say nothing")
    parser.add_argument(
        "--only", action="append", choices=MEASURES, help="may be given several times"
    )
    parser.add_argument(
        "--to", type=Path, default=RESULTS, metavar="FOLDER", help="for the results"
    )
    parser.add_argument(
        "--plots", action=argparse.BooleanOptionalAction, default=True, help="draw PNG files"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
