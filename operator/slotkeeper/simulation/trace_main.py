"""`slotkeeper trace`: generate a random trace, or take one from a balancer's access log."""

import argparse
import sys
from collections.abc import Sequence

from slotkeeper.simulation.generate import GENERATORS, generate
from slotkeeper.simulation.pipe import ignore_broken_pipe
from slotkeeper.simulation.trace import TraceError, from_access_log, write


def main(argv: Sequence[str]) -> int:
    """Write a trace to standard output; return 0, or 2 if the access log cannot be read."""
    arguments = _parser().parse_args(argv)
    try:
        requests = (
            from_access_log(sys.stdin)
            if arguments.source == "record"
            else generate(arguments.source, arguments.seed)
        )
    except TraceError as error:
        print(f"slotkeeper trace: {error}", file=sys.stderr)
        return 2
    with ignore_broken_pipe():
        write(requests, sys.stdout)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper trace",
        description="Write a request trace for `slotkeeper what-if` to standard output, as CSV: "
        "`at,seconds`, the arrival time and the service time of each request in seconds.",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    sources.add_parser("record", help="read a balancer's access log from standard input")
    for name, generator in GENERATORS.items():
        summary = (generator.__doc__ or "").strip()
        source = sources.add_parser(name, help=summary, description=summary)
        source.add_argument(
            "--seed", type=int, default=1, help="equal seeds generate equal traces (default: 1)"
        )
    return parser
