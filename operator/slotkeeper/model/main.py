"""`slotkeeper fetch`: the init container that puts a model in place."""

import argparse
import json
import logging
import os
import random
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from slotkeeper.model.errors import FetchError
from slotkeeper.model.fetch import Model, Outside, Patience, fetch
from slotkeeper.model.transfer import new_client

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75
EXIT_STOPPED = 143

EXIT_CODES = """\
exit status:
  0    the model is in place and checked
  1    it cannot be had like this: not found, forbidden, wrong checksum, no GGUF, no room, …
  2    the command line is wrong
  75   the network or the server failed too often; a later start goes on where this one ended
  143  stopped by SIGTERM; a later start goes on where this one ended
"""


def main(argv: Sequence[str]) -> int:
    """Download, check and place one model; the exit status is explained by --help."""
    options = _parser().parse_args(argv)
    _log_to_stderr()
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with new_client() as client:
            outside = Outside(
                client=client,
                clock=time.monotonic,  # noqa: TID251 (this is where the clock comes in)
                sleep=time.sleep,
                chance=random.random,  # noqa: TID251 (and chance)
                patience=Patience(tries=options.tries),
            )
            fetch(Model(options.url, options.to, options.sha256), outside)
    except FetchError as error:
        logging.getLogger(__name__).error("%s: %s", error.reason, error.message)
        _report(options.termination_log, error)
        return EXIT_TRY_AGAIN if error.reason.transient else EXIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, before)
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "slotkeeper fetch",
        description="Download a GGUF model, resuming after breaks; check it; put it in place.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="http:// or https:// URL of the GGUF file")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="PATH", help="where the file is to be"
    )
    parser.add_argument(
        "--sha256", type=_sha256, metavar="HEX", help="what the file's sha256 must be"
    )
    parser.add_argument(
        "--tries",
        type=int,
        metavar="N",
        default=Patience.tries,
        help="tries in a row without a new byte before giving up (default: %(default)s)",
    )
    parser.add_argument(
        "--termination-log",
        type=Path,
        metavar="PATH",
        default=Path("/dev/termination-log"),
        help="existing file that gets the reason of a failure as JSON (default: %(default)s)",
    )
    return parser


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("expected 64 hex digits")
    return text.lower()


def _log_to_stderr() -> None:
    # The root stays at WARNING: httpx logs whole URLs at INFO, with their tokens.
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("slotkeeper").setLevel(logging.INFO)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # The first process of a container has no default for SIGTERM: without this it would go on
    # until it is killed.
    raise SystemExit(EXIT_STOPPED)


def _report(path: Path, error: FetchError) -> None:
    """Tell the kubelet why; only a log line where there is no kubelet."""
    text = json.dumps({"reason": error.reason, "message": error.message})
    try:
        # Not created where it is missing: outside of a pod, /dev is no place for our files.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError:
        logging.getLogger(__name__).info("no termination log at %s", path)
