"""`slotkeeper download`: the init container that downloads a model."""

import logging
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

from slotkeeper import logs
from slotkeeper.api.model_url import HUB_ENDPOINT
from slotkeeper.download.download import Environment, RetryPolicy, download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.options import Options, parse
from slotkeeper.download.report import failure, success, write_termination_message
from slotkeeper.download.sources.s3 import Store, read_credentials
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.token import Token, read_token
from slotkeeper.download.transfer import new_client

EXIT_SUCCESS = 0
EXIT_FAILURE = 1
EXIT_RETRY = 75
EXIT_STOPPED = 143


def main(argv: Sequence[str]) -> int:
    """Download and verify all files. --help describes the exit status."""
    options = parse(argv)
    logs.configure(options.log_format, options.log_level)
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        _run(options)
    except DownloadError as error:
        logging.getLogger(__name__).error("%s: %s", error.reason, error.message)
        write_termination_message(options.termination_log, failure(error))
        return EXIT_RETRY if error.transient else EXIT_FAILURE
    finally:
        signal.signal(signal.SIGTERM, previous)
    return EXIT_SUCCESS


def _run(options: Options) -> None:
    token = None
    if options.token_file and options.token_hosts_file:
        token = read_token(
            options.token_file, options.token_hosts_file, allow_http=options.allow_http_token
        )
    with environment_of(options, token) as environment:
        records = download_all(options.files, environment)
    # If the model is in llama-server's image, only its other files are here.
    model = options.files[0].role == File.role
    message = success(records[0], options.files[0].path) if model else {}
    write_termination_message(options.termination_log, message)


@contextmanager
def environment_of(options: Options, token: Token | None) -> Iterator[Environment]:
    """The environment of downloads with these options."""
    with new_client(token, options.ca_file) as client:
        yield Environment(
            client=client,
            clock=time.monotonic,  # noqa: TID251 (the only clock of this program)
            sleep=time.sleep,
            chance=random.random,  # noqa: TID251 (the only source of randomness)
            retry=RetryPolicy(tries=options.tries),
            limits=StorageLimits(options.max_file_bytes),
            token=token,
            store=_store(options),
            hub_endpoint=os.environ.get("HF_ENDPOINT") or HUB_ENDPOINT,
            always_verify=options.always_verify,
        )


def _store(options: Options) -> Store:
    credentials = None
    if options.s3_credentials:
        credentials = read_credentials(
            options.s3_credentials,
            now=lambda: datetime.now(UTC),  # noqa: TID251 (the only clock of this program)
        )
    virtual_hosts = options.s3_virtual_hosts
    return Store(options.s3_endpoint, options.s3_region, not virtual_hosts, credentials)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # The first process of a PID namespace has no default action for SIGTERM: without a handler it
    # would run until SIGKILL.
    raise SystemExit(EXIT_STOPPED)
