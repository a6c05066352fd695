"""`slotkeeper trace`: draw a trace at random, or take one from a balancer's access log."""

import argparse
import sys
from collections.abc import Sequence

from slotkeeper.simulation.generate import GENERATORS, draw
from slotkeeper.simulation.pipe import ignore_broken_pipe
from slotkeeper.simulation.trace import TraceError, recorded, write


def main(argv: Sequence[str]) -> int:
    """Write a trace to standard output; 0, or 2 where the log tells of no request."""
    given = _parser().parse_args(argv)
    try:
        calls = recorded(sys.stdin) if given.source == "record" else draw(given.source, given.seed)
    except TraceError as error:
        print(f"slotkeeper trace: {error}", file=sys.stderr)
        return 2
    with ignore_broken_pipe():
        write(calls, sys.stdout)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper trace",
        description="Write a trace for `slotkeeper what-if`: a line `at,seconds` for each request, "
        "when it came and how long it kept a slot.",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    sources.add_parser("record", help="read a balancer's access log from standard input")
    for name, generator in GENERATORS.items():
        about = (generator.__doc__ or "").strip()
        source = sources.add_parser(name, help=about, description=about)
        source.add_argument("--seed", type=int, default=1, help="the same gives the same (1)")
    return parser
