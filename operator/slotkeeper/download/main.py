"""`slotkeeper download`: the init container that puts a model in place."""

import logging
import random
import signal
import time
from collections.abc import Sequence
from types import FrameType

from slotkeeper import logs
from slotkeeper.download.download import Environment, RetryPolicy, download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.options import Options, parse
from slotkeeper.download.report import failure, success, write_termination_message
from slotkeeper.download.token import read_token
from slotkeeper.download.transfer import new_client

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75
EXIT_STOPPED = 143


def main(argv: Sequence[str]) -> int:
    """Download, check and place all files; the exit status is explained by --help."""
    options = parse(argv)
    logs.configure(options.log_format, options.log_level)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        _run(options)
    except DownloadError as error:
        logging.getLogger(__name__).error("%s: %s", error.reason, error.message)
        write_termination_message(options.termination_log, failure(error))
        return EXIT_TRY_AGAIN if error.transient else EXIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, before)
    return EXIT_DONE


def _run(options: Options) -> None:
    token = read_token(options.token_file) if options.token_file else None
    with new_client(token) as client:
        outside = Environment(
            client=client,
            clock=time.monotonic,  # noqa: TID251 (this is where the clock comes in)
            sleep=time.sleep,
            chance=random.random,  # noqa: TID251 (and chance)
            patience=RetryPolicy(tries=options.tries),
        )
        model, *_ = download_all(options.files, outside)
    write_termination_message(options.termination_log, success(model, options.files[0].path))


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # The first process of a container has no default for SIGTERM: without this it would go on
    # until it is killed.
    raise SystemExit(EXIT_STOPPED)
