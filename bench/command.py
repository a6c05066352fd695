"""The command line of a benchmark that consists of several measurements."""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.balancer.rounds import FULL, QUICK, Scale
from bench.findings import Findings
from bench.processes import allow_many_files
from bench.report import as_json, markdown

RESULTS = Path(__file__).resolve().parent / "results"

Measures = Mapping[str, Callable[[Scale], Awaitable[Findings]]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: `python -m bench.NAME`, from the root of the repository."""

    name: str
    title: str
    description: str
    measures: Measures
    versions: Callable[[], str]
    """Returns the versions of the compared systems."""

    def run(self, argv: Sequence[str]) -> int:
        """Measure and report; return 0 if all was measured, whether or not the gates are met."""
        options = self.parser().parse_args(argv)
        allow_many_files()
        print(asyncio.run(self._measure(options)))
        print(f"written to {options.to}")
        return 0

    def parser(self) -> argparse.ArgumentParser:
        """Return the parser of the command line."""
        parser = argparse.ArgumentParser(
            prog=f"python -m bench.{self.name}", description=self.description
        )
        parser.add_argument(
            "--quick", action="store_true", help="short smoke test, whose numbers are meaningless"
        )
        parser.add_argument(
            "--only",
            action="append",
            choices=self.measures,
            help="run this measurement only (repeatable)",
        )
        parser.add_argument(
            "--to",
            type=Path,
            default=RESULTS,
            metavar="FOLDER",
            help="output folder (bench/results)",
        )
        parser.add_argument(
            "--plots", action=argparse.BooleanOptionalAction, default=True, help="draw PNG files"
        )
        return parser

    async def _measure(self, options: argparse.Namespace) -> str:
        """Run the measurements; write the results after each one, since the next one can fail."""
        began = time.monotonic()
        environment = self._environment()
        findings: list[Findings] = []
        text = ""
        for name in options.only or self.measures:
            findings.append(await self.measures[name](QUICK if options.quick else FULL))
            environment["duration"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
            print(f"{name}: done after {environment['duration']}", file=sys.stderr, flush=True)
            text = self._write(findings, environment, options.to, plots=options.plots)
        return text

    def _write(
        self,
        findings: Sequence[Findings],
        environment: Mapping[str, str],
        folder: Path,
        *,
        plots: bool,
    ) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        text = markdown(self.title, findings, environment)
        (folder / f"{self.name}.md").write_text(text)
        numbers = json.dumps(as_json(findings, environment), indent=1)
        (folder / f"{self.name}.json").write_text(numbers)
        if plots:
            # matplotlib takes long to import and is needed only here.
            from bench.plots import draw  # noqa: PLC0415

            for plot in findings[-1].plots:
                draw(plot, folder)
        return text

    def _environment(self) -> dict[str, str]:
        return {
            "command": " ".join([f"python -m bench.{self.name}", *sys.argv[1:]]),
            "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
            f"loopback, load average {os.getloadavg()[0]:.1f} at the start",
            "versions": f"{self.versions()}, Python {platform.python_version()}",
            "commit": first_line("git", "describe", "--always", "--dirty"),
        }


def first_line(*command: str) -> str:
    """Return the first line that a command prints. Raises CalledProcessError."""
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return (result.stdout or result.stderr).splitlines()[0].strip()
