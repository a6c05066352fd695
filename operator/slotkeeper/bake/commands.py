"""Runs the programs that build images."""

import logging
import os
import subprocess
from collections.abc import Sequence

from slotkeeper.bake.errors import BakeError

log = logging.getLogger(__name__)

SHOWN_LINES = 5
"""Last lines of a program's output, in the message of an error."""
TERMINATION_SECONDS = 10.0
_ENVIRONMENT = {"DOCKER_BUILDKIT": "1"}
"""Docker before version 23 otherwise builds without BuildKit, which has neither --link nor
--chmod."""


def succeeds(argv: Sequence[str]) -> bool:
    """Whether a program exits with status 0."""
    return _completed(argv).returncode == 0


def output(argv: Sequence[str]) -> str:
    """Return what a program prints. Raises BakeError with its errors if it fails."""
    result = _completed(argv)
    if result.returncode:
        raise BakeError(_message(argv, result.returncode, result.stderr.strip().splitlines()))
    return result.stdout


def run(argv: Sequence[str]) -> str:
    """Run a program that takes minutes, and log its output line by line; return it.

    Raises BakeError with its last lines if it fails. If this process is interrupted, the program
    is terminated.
    """
    log.info("running %s %s", argv[0], argv[1])
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | _ENVIRONMENT,
    ) as process:
        try:
            for line in process.stdout or ():
                if text := line.strip():
                    lines.append(text)
                    log.info("%s: %s", argv[0], text)
            status = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(TERMINATION_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status:
        raise BakeError(_message(argv, status, lines))
    return "\n".join(lines)


def _completed(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _message(argv: Sequence[str], status: int, lines: Sequence[str]) -> str:
    shown = " / ".join(lines[-SHOWN_LINES:]) or "no output"
    return f"{argv[0]} {argv[1]} failed with exit status {status}: {shown}"
