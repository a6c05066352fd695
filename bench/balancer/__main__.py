"""Runs the benchmark: `python -m bench.balancer`, from the root of the repository."""

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
    measure_prefix_cache,
    measure_queue,
    measure_requests,
    measure_streams,
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
    "prefix-cache": measure_prefix_cache.measure,
    "changes": measure_changes.measure,
    "bodies": measure_bodies.measure,
    "memory": measure_memory.measure,
}


def main(argv: Sequence[str]) -> int:
    """Measure and report; return 0 if all was measured, whether or not the gates are met."""
    options = _parser().parse_args(argv)
    missing = [name for name in ("nginx", "haproxy") if not shutil.which(name)]
    if missing:
        print(
            f"missing: {', '.join(missing)}. Install with: "
            "apt-get install --no-install-recommends nginx-light haproxy",
            file=sys.stderr,
        )
        return 1
    allow_many_files()
    print(asyncio.run(_measure(options)))
    print(f"written to {options.to}")
    return 0


async def _measure(options: argparse.Namespace) -> str:
    """Run the measurements; write the results after each one, since the next one can fail."""
    began = time.monotonic()
    environment = _environment()
    findings: list[Findings] = []
    text = ""
    for name in options.only or MEASURES:
        findings.append(await MEASURES[name](QUICK if options.quick else FULL))
        environment["duration"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
        print(f"{name}: done after {environment['duration']}", file=sys.stderr, flush=True)
        text = _write(findings, environment, options.to, plots=options.plots)
    return text


def _write(
    findings: Sequence[Findings], environment: Mapping[str, str], folder: Path, *, plots: bool
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown("The balancer compared with other proxies", findings, environment)
    (folder / "balancer.md").write_text(text)
    (folder / "balancer.json").write_text(json.dumps(as_json(findings, environment), indent=1))
    if plots:
        # matplotlib takes long to import and is needed only here.
        from bench.plots import draw  # noqa: PLC0415

        for plot in findings[-1].plots:
            draw(plot, folder)
    return text


def _environment() -> dict[str, str]:
    nginx = _first_line("nginx", "-v").rpartition("/")[2]
    haproxy = _first_line("haproxy", "-v").split()[2]
    return {
        "command": " ".join(["python -m bench.balancer", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, loopback, "
        f"load average {os.getloadavg()[0]:.1f} at the start",
        "versions": f"nginx {nginx}, HAProxy {haproxy}, Python {platform.python_version()}",
        "commit": _first_line("git", "describe", "--always", "--dirty"),
    }


def _first_line(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return (result.stdout or result.stderr).splitlines()[0].strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.balancer",
        description="Compare the balancer with nginx, HAProxy, random and round-robin choice, and "
        "direct connections. Each round measures all of them; results are medians over the rounds.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short smoke test, whose numbers are meaningless"
    )
    parser.add_argument(
        "--only", action="append", choices=MEASURES, help="run this measurement only (repeatable)"
    )
    parser.add_argument(
        "--to", type=Path, default=RESULTS, metavar="FOLDER", help="output folder (bench/results)"
    )
    parser.add_argument(
        "--plots", action=argparse.BooleanOptionalAction, default=True, help="draw PNG files"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
