"""What servers share as processes: shutdown signals and the limit of open files."""

import asyncio
import logging
import resource
import signal

_SHUTDOWN_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def shutdown_signal(loop: asyncio.AbstractEventLoop) -> asyncio.Future[bool]:
    """Return a future of the first shutdown signal: True for SIGTERM."""
    shutdown: asyncio.Future[bool] = loop.create_future()

    def set_result(graceful: bool) -> None:
        if not shutdown.done():
            shutdown.set_result(graceful)

    def on_signal(number: int, _: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(set_result, number == signal.SIGTERM)

    # Not with loop.add_signal_handler: those handlers are removed with the loop.
    for number in _SHUTDOWN_SIGNALS:
        signal.signal(number, on_signal)
    return shutdown


def ignore_shutdown_signals() -> None:
    """Ignore further signals.

    During shutdown Python restores the default handlers, and a second SIGTERM would exit non-zero.
    """
    for number in _SHUTDOWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def raise_file_limit(connections: int) -> None:
    """Allow as many open files as connections need. Often only 1,024 are allowed by default."""
    needed = 2 * connections + 1024  # each request also has a connection to an upstream
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        _log.warning(
            "the limit of open files, %d, is below the %d that --max-connections may need; raise "
            "the limit or lower the flag",
            hard,
            needed,
        )
        needed = hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
