"""Requests that are sent after a part of their prompt was restored from a file."""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from slotkeeper.balancer.prompts.context import CompletedPrompt
from slotkeeper.balancer.prompts.prompt_files import PromptFiles, PromptRestore
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.proxy.sender import Sender
from slotkeeper.edge.usage import Tokens
from slotkeeper.llamacpp.tasks import ONE_TASK
from slotkeeper.scheduling import SlotReservation
from slotkeeper.wire.client import Pool

_log = logging.getLogger(__name__)

Reservation = SlotReservation[ProxiedRequest]


@dataclass(slots=True)
class PromptRestores:
    """Delays requests for restores, and reports what became of them."""

    files: PromptFiles
    sender: Sender
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    release: Callable[[Reservation], None]
    """Frees the slot of a request that ended during its restore."""
    _running: set[Reservation] = field(default_factory=set)

    def begin(self, request: ProxiedRequest, reservation: Reservation, pool: Pool) -> bool:
        """Restore and then send a request, if its replica has a file of its prompt.

        False: it has none, and the request is to be sent.
        """
        queued = reservation.queued
        # A preemptible request may have to leave its slot at any moment.
        if not queued.prefixes or queued.preemptible or queued.tasks is not ONE_TASK:
            return False
        if not request.uses_restored_slot:
            return False
        restore = self.files.plan(
            reservation.replica.name, queued.prefixes, queued.size, queued.cached_prefixes
        )
        if restore is None:
            return False
        self._running.add(reservation)
        self.spawn(self._restore(request, reservation, pool, restore))
        return True

    def is_running(self, reservation: Reservation) -> bool:
        """Whether llama-server may be restoring a slot for this reservation: it is not free."""
        return reservation in self._running

    def finished(self, request: ProxiedRequest, tokens: Tokens | None) -> None:
        """Record a finished request and the tokens that its replica reported, if any."""
        queued = request.queued
        if tokens is None or not queued.prefixes or queued.tasks is not ONE_TASK:
            return
        stats = request.stats
        prompt = CompletedPrompt(
            queued.prefixes, *tokens, stats.edges.prompt_seconds(), stats.restored
        )
        self.files.completed(stats.upstream, prompt)

    async def _restore(
        self, request: ProxiedRequest, reservation: Reservation, pool: Pool, restore: PromptRestore
    ) -> None:
        restored = None
        try:
            restored = await restore.run()
        except Exception:
            # The request is served all the same.
            _log.exception("restore of a prompt failed")
        self._running.discard(reservation)
        if request.reservation is not reservation:
            self.release(reservation)
            return
        request.stats.restored = restored
        if self.sender.may_dispatch():
            self.sender.send(request, pool)
        else:
            # A new leader may have counted the slots without this one.
            self.sender.requeue(request)
