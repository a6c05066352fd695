"""`slotkeeper download`: the init container that downloads a model."""

import logging
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType

from slotkeeper import logs
from slotkeeper.address_guard import AddressGuard, network
from slotkeeper.api.model_url import HUB_ENDPOINT
from slotkeeper.api.split_model import part_count
from slotkeeper.download.download import Environment, RetryPolicy, download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.inspect import inspect
from slotkeeper.download.network import Network
from slotkeeper.download.node_cache import NodeCache, mark, read_limits
from slotkeeper.download.options import Options, parse
from slotkeeper.download.progress_server import serve_progress
from slotkeeper.download.redaction import Redaction
from slotkeeper.download.report import Message, failure, success, write_termination_message
from slotkeeper.download.sources.claim import is_on_claim
from slotkeeper.download.sources.s3 import Store, read_credentials
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.token import Token, read_token
from slotkeeper.download.tracker import Tracker
from slotkeeper.download.transfer import new_client
from slotkeeper.flags import CA_CERTIFICATES

CLOCK = time.monotonic  # noqa: TID251 (the only clock of this program)

EXIT_SUCCESS = 0
EXIT_FAILURE = 1
EXIT_RETRY = 75
EXIT_STOPPED = 143


def main(argv: Sequence[str]) -> int:
    """Download and verify all files. --help describes the exit status."""
    options = parse(argv)
    logs.configure(options.log_format, options.log_level)
    previous = signal.signal(signal.SIGTERM, _stop)
    redaction = Redaction(options.secret_files)
    try:
        with redaction.of_logs():
            return _run_and_report(options, redaction)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run_and_report(options: Options, redaction: Redaction) -> int:
    """Return the exit status."""
    status = EXIT_SUCCESS
    try:
        message = _run(options, redaction)
    except DownloadError as error:
        logging.getLogger(__name__).error("%s: %s", error.reason, error.message)
        message = failure(error)
        status = EXIT_RETRY if error.transient else EXIT_FAILURE
    write_termination_message(options.termination_log, redaction.of_texts(message))
    return status


def _run(options: Options, redaction: Redaction) -> Message:
    fetched = [file for file in options.files if not is_on_claim(file)]
    tracker = Tracker(CLOCK, sum(part_count(file.url) for file in fetched))
    if options.progress_port is None:
        return _download(options, tracker)

    def report() -> Mapping[str, object]:
        # A hub chooses the names of files.
        return redaction.of_texts(tracker.report())

    with serve_progress(options.progress_port, report, CLOCK, time.sleep):
        return _download(options, tracker)


def _download(options: Options, tracker: Tracker) -> Message:
    token = None
    if options.token_file and options.token_hosts_file:
        token = read_token(
            options.token_file, options.token_hosts_file, allow_http=options.allow_http_token
        )
    with environment_of(options, token) as environment:
        if options.inspect:
            return inspect(options.files, environment)
        records = download_all(options.files, replace(environment, tracker=tracker))
    # If the model is in llama-server's image, only its other files are here.
    model = options.files[0].role == File.role
    found = success(records[0], options.files[0].path) if model else {}
    return {**found, **({"receivedBytes": tracker.received} if tracker.received else {})}


@contextmanager
def environment_of(options: Options, token: Token | None) -> Iterator[Environment]:
    """The environment of downloads with these options."""
    certificates = os.environ.get(CA_CERTIFICATES, "")
    with new_client(
        token, options.ca_file, _network(options), certificates, options.ca_config_map
    ) as client:
        yield Environment(
            client=client,
            clock=CLOCK,
            sleep=time.sleep,
            chance=random.random,  # noqa: TID251 (the only source of randomness)
            retry=RetryPolicy(tries=options.tries),
            limits=_limits(options),
            token=token,
            store=_store(options),
            plain_http=options.plain_http_registries,
            hub_endpoint=os.environ.get("HF_ENDPOINT") or HUB_ENDPOINT,
            always_verify=options.always_verify,
            mark_used=mark if options.node_cache else None,
        )


def _limits(options: Options) -> StorageLimits:
    if options.node_cache:
        cache = NodeCache(read_limits(options.node_cache), time.sleep)
        return cache.storage_limits(options.max_file_bytes)
    return StorageLimits(options.max_file_bytes, all_files_bytes=options.max_total_bytes)


def _network(options: Options) -> Network:
    guard = None
    if options.guarded_namespace is not None:
        allowed = tuple(map(network, options.allowed_addresses))
        guard = AddressGuard(options.guarded_namespace, allowed)
    return Network(guard, options.trusted_proxies)


def _store(options: Options) -> Store:
    credentials = None
    if options.s3_credentials:
        credentials = read_credentials(
            options.s3_credentials,
            options.s3_session_token,
            now=lambda: datetime.now(UTC),  # noqa: TID251 (the only clock of this program)
        )
    virtual_hosts = options.s3_virtual_hosts
    return Store(options.s3_endpoint, options.s3_region, not virtual_hosts, credentials)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # The first process of a PID namespace has no default action for SIGTERM: without a handler it
    # would run until SIGKILL.
    raise SystemExit(EXIT_STOPPED)
