"""Requests that end llama-servers: remembered, so that one request does not end all replicas.

llama-server runs all requests in one process. A request that makes it fail, by an assertion or for
lack of memory, aborts the requests beside it, and would do the same to the next replica.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.wire.errors import HttpError

_log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 600.0
"""The kubelet resets the back-off of a container's restarts after the same time."""
_MAX_REMEMBERED = 1024
_CERTAIN = 2
"""Crashes after which a request is the cause. A crash with a single request counts as two."""


class CrashRecord:
    """By fingerprint, how many crashes each request was running in. Pure.

    | a request was running in | an identical one                                        |
    |---|---|
    | a crash, with no other   | is rejected                                             |
    | a crash, with others     | is sent once more, unless one is running already        |
    | two crashes              | is rejected                                             |

    A replica that stops to respond counts as a crash with others: the request may not be the cause.
    A crash is forgotten after REMEMBERED_SECONDS, or when an identical request is completed.
    """

    def __init__(self) -> None:
        self.crashes: OrderedDict[int, tuple[float, int]] = OrderedDict()
        """By fingerprint: the time of the last crash, and their weighted number."""

    def add(self, fingerprints: Iterable[int], now: float, *, others: bool = False) -> None:
        """Record a crash of one replica, on which requests with these fingerprints were running.

        `others`: something else may be the cause, such as a request that is not known here.
        """
        running = set(fingerprints)
        weight = _CERTAIN if len(running) == 1 and not others else 1
        for fingerprint in running:
            self._add(fingerprint, weight, now)

    def suspect(self, fingerprint: int, now: float) -> None:
        """Record that a replica stopped to respond while it processed this request."""
        self._add(fingerprint, 1, now)

    def _add(self, fingerprint: int, weight: int, now: float) -> None:
        self.crashes[fingerprint] = now, self.count(fingerprint, now) + weight
        self.crashes.move_to_end(fingerprint)
        if len(self.crashes) > _MAX_REMEMBERED:
            self.crashes.popitem(last=False)

    def withdraw(self, fingerprints: Iterable[int]) -> None:
        """Forget these requests: they are not the cause."""
        for fingerprint in fingerprints:
            self.crashes.pop(fingerprint, None)

    def count(self, fingerprint: int, now: float) -> int:
        """Return how many crashes are remembered, as weighted by `add`."""
        last, number = self.crashes.get(fingerprint, (0.0, 0))
        if number and now - last >= REMEMBERED_SECONDS:
            del self.crashes[fingerprint]
            return 0
        return number


class CrashGuard:
    """Notices crashes of replicas, and rejects the requests that caused them.

    A replica crashed if it closed its connections, accepts no new one or is not ready, and was not
    being deleted. The last two are known only when its endpoint changes: see ReplicaSet.wait_ending
    and wait_restarted. `active` are all requests of the proxy, `spawn` starts a task.
    """

    def __init__(
        self,
        replicas: ReplicaSet,
        metrics: Metrics,
        active: Collection[ProxiedRequest],
        now: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._replicas = replicas
        self._metrics = metrics
        self._active = active
        self._now = now
        self._spawn = spawn
        self._record = CrashRecord()
        self.has_workers = False
        """Whether replicas have workers. llama-server also ends when one of them is lost."""

    def check(self, request: ProxiedRequest) -> None:
        """Raise HttpError if the request is not to be sent, since it ended replicas before."""
        if not self._record.crashes:
            return
        count = self._record.count(request.fingerprint, self._now())
        if count >= _CERTAIN:
            raise HttpError(
                422,
                "request_crashes_server",
                "llama-server crashed while it processed this request: it is not sent again for "
                f"{REMEMBERED_SECONDS / 60:.0f} minutes; change the request, and see the log of "
                "the replica",
            )
        if count and any(
            other.reservation and other.fingerprint == request.fingerprint
            for other in self._active
            if other is not request
        ):
            raise HttpError(
                503,
                "suspected_request",
                "llama-server crashed while it processed this request and others: identical "
                "requests are sent one at a time",
                retry_after=1,
            )

    def on_lost(self, name: str, request: ProxiedRequest) -> None:
        """Record a replica that closed a request's connection. To be called before it is ejected.

        Only the first of its connections counts: the others are closed by the same crash.
        """
        if self._replicas.in_rotation(name):
            self._crashed(name, {request.fingerprint})

    def on_refused(self, name: str) -> None:
        """Record a replica that accepts no connections any more, though aborted requests ran on it.

        To be called before it is ejected. Its clients have gone, so that no connection was closed.
        """
        if self._replicas.in_rotation(name):
            self._crashed(name, set())

    def _crashed(self, name: str, running: set[int]) -> None:
        running |= {each.fingerprint for each in self._active if each.is_running_on(name)}
        # llama-server notices some time later that a client has gone: until then it may crash on
        # its request, and otherwise those beside it would be blamed.
        running |= {each.fingerprint for each in self._replicas.aborted_requests(name)}
        # Sent by the previous leader, or to the replica directly; or the loss of a worker.
        others = self.has_workers or self._replicas.has_adopted(name)
        self._record.add(running, self._now(), others=others)
        self._spawn(self._verify(name, running, others=others))

    def on_unresponsive(self, requests: Iterable[ProxiedRequest]) -> None:
        """Record that a replica stopped to respond while it processed these requests."""
        # Identical ones count once: it is one failure.
        for fingerprint in {each.fingerprint for each in requests}:
            self._record.suspect(fingerprint, self._now())

    def on_completed(self, request: ProxiedRequest) -> None:
        """Record that a request has been processed to its end."""
        if self._record.crashes:
            self._record.withdraw((request.fingerprint,))

    def on_ending(self, request: ProxiedRequest) -> None:
        """Forget a request whose replica is being deleted: it is sent again.

        _verify finds out the same, but later if the replica's address has gone.
        """
        self._record.withdraw((request.fingerprint,))

    async def _verify(self, name: str, running: Collection[int], *, others: bool) -> None:
        replicas = self._replicas
        if await replicas.accepts_connections(name):
            self._record.withdraw(running)
            if not await replicas.wait_restarted(name):
                return
            self._record.add(running, self._now(), others=others)
        elif await replicas.wait_ending(name):
            self._record.withdraw(running)
            return
        self._metrics.replica_crashes.inc()
        _log.warning("replica %s crashed with %d requests on it", name, len(running))
