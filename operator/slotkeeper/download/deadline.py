"""Requests whose responses must begin in time.

The timeouts of the HTTP library apply between two bytes. A host that sends a byte of a header every
few seconds, or interim responses (1xx) without end, would keep a request for ever.
"""

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Thread
from typing import TypeVar

import httpx

RESPONSE_SECONDS = 120.0
"""Until the headers of a response, with all redirects and requests for tokens before it. Object
stores that read from tape may take a minute."""

Result = TypeVar("Result")


def send(
    client: httpx.Client,
    request: httpx.Request,
    auth: httpx.Auth | None,
    *,
    seconds: float = RESPONSE_SECONDS,
) -> httpx.Response:
    """Send a request, and return the response without its body.

    Raises httpx.RequestError, and DownloadError of the client's checks.
    """
    return in_time(
        lambda: client.send(request, stream=True, auth=auth or httpx.USE_CLIENT_DEFAULT),
        discard=httpx.Response.close,
        seconds=seconds,
    )


def in_time(
    action: Callable[[], Result], *, discard: Callable[[Result], None], seconds: float
) -> Result:
    """Return the result of an action, which runs in another thread; `discard` is called with a
    result that is too late. Raises httpx.ReadTimeout, and what the action raises."""
    future: Future[Result] = Future()
    # A daemon, so that the process can exit while it runs.
    Thread(target=_run, args=(action, future, discard), daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if not future.cancel():
            return future.result()
        raise httpx.ReadTimeout(f"no response in {seconds:.0f} s") from None


def _run(
    action: Callable[[], Result], future: Future[Result], discard: Callable[[Result], None]
) -> None:
    try:
        result = action()
    except Exception as error:
        with suppress(InvalidStateError):  # too late
            future.set_exception(error)
        return
    try:
        future.set_result(result)
    except InvalidStateError:
        discard(result)
