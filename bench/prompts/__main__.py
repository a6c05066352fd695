"""Run the benchmark of prompt files: `make bench-prompts`, from the root of the repository."""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median

from bench.findings import Findings, Plot, Table, at_most, digits
from bench.plots import draw
from bench.prompts import beside
from bench.prompts.testbed import Answer, Testbed
from bench.report import as_json, markdown

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"
TITLE = "Prompts that outlive their replica"
HOSTS = ("127.0.0.2", "127.0.0.3")
_LAST_CHARACTERS = 100
"""Of a primed prompt that are not in its beginning: the question of a user."""
COLD, WARM, PRIMED = "cold", "same slot", "primed"
KILLED, NEW = "restored after kill -9", "restored in another replica"


def main(argv: Sequence[str]) -> int:
    """Measure and report; return 0 whether or not the gates are met."""
    arguments = _parser().parse_args(argv)
    # All processes are ended by leaving the testbed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    measure = _measure_beside if arguments.beside else _measure_prompts
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        findings = measure(arguments, Path(name))
    about = {
        "command": " ".join(["python -m bench.prompts", *argv]),
        "model": arguments.model.name,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f} at the end, of this run and other programs",
        "commit": _output("git", "describe", "--always", "--dirty"),
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, [findings], about)
    name = "prompts-beside" if arguments.beside else "prompts"
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps(as_json([findings], about), indent=1))
    for plot in findings.plots:
        draw(plot, RESULTS)
    print(text)
    return 0


def _measure_beside(arguments: argparse.Namespace, folder: Path) -> Findings:
    testbeds: dict[str, Testbed] = {}
    for number, name in enumerate((beside.ON, beside.OFF, beside.CONTROL)):
        own = folder / str(number)
        (own / "prompts").mkdir(parents=True)
        testbeds[name] = Testbed(
            shlex.split(arguments.llama_server),
            arguments.model.resolve(),
            own / "prompts",
            [f"127.0.0.{20 + number}"],
            threads=arguments.threads,
            files=name == beside.ON,
            address=f"127.0.0.{10 + number}",
        )
    return beside.measure(testbeds, arguments.beside)


def _measure_prompts(arguments: argparse.Namespace, folder: Path) -> Findings:
    prompts = _prompts(arguments.prompts, arguments.characters)
    files = folder / "prompts"
    files.mkdir()
    testbed = Testbed(
        shlex.split(arguments.llama_server),
        arguments.model.resolve(),
        files,
        HOSTS,
        threads=arguments.threads,
    )
    with testbed:
        samples = _measure(testbed, prompts, arguments.generated)
    some = prompts[: arguments.primed]
    samples[PRIMED] = _measure_primed(testbed, folder, some, arguments.generated)
    size = sum(each.stat().st_size for each in files.rglob("*") if each.is_file())
    return _findings(samples, size / len(prompts))


def _measure(testbed: Testbed, prompts: Sequence[str], tokens: int) -> dict[str, list[Answer]]:
    """Compute all prompts, and restore them in another process and in another replica."""
    samples: dict[str, list[Answer]] = {}
    first, second = HOSTS
    with testbed.replica(first):
        samples[COLD], samples[WARM] = [], []
        for number, prompt in zip(count(1), prompts, strict=False):
            samples[COLD].append(testbed.ask(prompt, tokens))
            samples[WARM].append(testbed.ask(prompt, tokens))
            testbed.wait_for_saves(number)
            print(f"{number} of {len(prompts)} computed and saved", file=sys.stderr)
        testbed.kill_and_restart(first)
        samples[KILLED] = [testbed.ask(prompt, tokens) for prompt in prompts]
    with testbed.replica(second):
        samples[NEW] = [testbed.ask(prompt, tokens) for prompt in prompts]
    return samples


def _measure_primed(
    testbed: Testbed, folder: Path, prompts: Sequence[str], tokens: int
) -> list[Answer]:
    """Prime a new replica with the beginning of each prompt, without prompt files."""
    beginnings = folder / "beginnings"
    beginnings.mkdir()
    primed: list[Answer] = []
    with replace(testbed, files=False, prime=beginnings) as own:
        for number, prompt in enumerate(prompts, start=1):
            (beginnings / "prompt").write_text(prompt[:-_LAST_CHARACTERS])
            # The balancer reads the folder every second.
            time.sleep(2.5)
            with own.replica(HOSTS[0]):
                primed.append(own.ask(prompt, tokens))
            print(f"{number} of {len(prompts)} primed", file=sys.stderr)
    return primed


def _findings(samples: dict[str, list[Answer]], file_bytes: float) -> Findings:
    cold = samples[COLD]
    seconds = {
        name: [each.first_token_seconds for each in found] for name, found in samples.items()
    }
    rows = [
        (
            name,
            f"{median(seconds[name]):.3f} s",
            f"{max(seconds[name]):.3f} s",
            digits(median(seconds[name]) / median(seconds[COLD])),
            f"{median(each.computed for each in found):.0f}",
            f"{median(each.cached for each in found):.0f}",
            f"{_equal(found, cold[: len(found)])} of {len(found)}",
        )
        for name, found in samples.items()
    ]
    columns = ("prompt", "first token", "slowest", "x cold", "computed", "cached", "text as cold")
    note = (
        f"Medians of {len(cold)} prompts, at temperature 0; the first token as a client of the "
        f"balancer gets it. A file has {file_bytes / 1e6:.1f} MB."
    )
    different = Table(
        "Where the text differs from the cold one",
        ("prompt", "number", "at token", "gap", "second best is the other's"),
        [
            (name, str(number), *_difference(cold[number], answer))
            for name, found in samples.items()
            for number, answer in enumerate(found)
            if answer.text != cold[number].text
        ],
        "`gap`: between the logarithms of the probabilities of the two best tokens in the cold "
        "run, at the first token that differs. At 0.01, one is 1 % likelier than the other.",
    )
    tokens = median(each.computed for each in cold)
    restored = max(median(seconds[KILLED]), median(seconds[NEW]))
    return Findings(
        "prompts",
        [Table("Time to the first token", columns, rows, note), different],
        [at_most("restored, x cold", restored / median(seconds[COLD]), 1 / 20)],
        [
            Plot(
                "prompt-cache",
                f"Time to the first token of a prompt of {tokens:,.0f} tokens",
                "seconds",
                {"slotkeeper": {name: median(values) for name, values in seconds.items()}},
                log=True,
            )
        ],
        raw={
            name: [
                [each.first_token_seconds, each.computed, each.cached, each.text] for each in found
            ]
            for name, found in samples.items()
        },
    )


def _equal(some: Sequence[Answer], others: Sequence[Answer]) -> int:
    return sum(each.text == other.text for each, other in zip(some, others, strict=True))


def _difference(cold: Answer, other: Answer) -> tuple[str, str, str]:
    """Return where two responses part, and how certain the cold one was there."""
    pairs = zip(cold.probabilities, other.probabilities, strict=False)
    for number, (mine, theirs) in enumerate(pairs):
        if mine["id"] == theirs["id"]:
            continue
        best = sorted(mine["top_logprobs"], key=lambda each: -each["logprob"])
        gap = best[0]["logprob"] - best[1]["logprob"]
        return str(number), digits(gap), "yes" if best[1]["id"] == theirs["id"] else "no"
    return "", "", ""


def _prompts(number: int, characters: int) -> list[str]:
    """Return prompts of English text that have no beginning in common: our documentation."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))
    available = len(text) // characters
    if number > available:
        raise SystemExit(f"the documentation has text for {available} prompts")
    return [text[at * characters : (at + 1) * characters] for at in range(number)]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.prompts", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a GGUF file")
    add("--llama-server", default="llama-server", help="its command (default: %(default)s)")
    add("--prompts", type=int, default=50, help="default: %(default)s")
    add("--characters", type=int, default=7000, help="of a prompt; default: %(default)s")
    add("--generated", type=int, default=32, help="tokens of a response; default: %(default)s")
    add(
        "--beside",
        type=int,
        metavar="N",
        help="measure instead what prompt files cost N requests that restore nothing",
    )
    add("--primed", type=int, default=10, help="prompts that are primed; default: %(default)s")
    add("--threads", type=int, default=2, help="of llama-server; default: %(default)s")
    add("--folder", type=Path, help="where the files are (default: that of temporary files)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
