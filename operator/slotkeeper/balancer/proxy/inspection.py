"""Inspection of requests: how many slots each needs, and whether it is sent to a replica at all."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from slotkeeper.balancer import responses
from slotkeeper.balancer.prefixes import MIN_PROMPT_BYTES, prefixes, uses_restored_slot
from slotkeeper.balancer.proxy.crash_guard import CrashGuard
from slotkeeper.balancer.proxy.prompt_limits import UNLIMITED_BYTES, PromptLimits
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.edge import request_body
from slotkeeper.edge.json_members import Members
from slotkeeper.edge.routes import PREFIX_CACHED, STREAMABLE
from slotkeeper.edge.stream_request import wants_stream, wants_stream_large
from slotkeeper.llamacpp.tasks import ONE_TASK
from slotkeeper.scheduling import Dispatcher, Replica
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

_log = logging.getLogger(__name__)

_BEGINNING = 1024


class RequestInspection:
    """Inspects bodies on arrival, and checks requests on arrival and before they are sent."""

    def __init__(
        self, replicas: ReplicaSet, dispatcher: Dispatcher[Any], crash_guard: CrashGuard
    ) -> None:
        self.prompt_limits = PromptLimits()
        self.running = 0
        """Large requests that are inspected, or wait for it. They are not queued yet."""
        self._replicas = replicas
        self._dispatcher = dispatcher
        self._crash_guard = crash_guard
        # One at a time: each needs its body in one piece, which is a copy of it.
        self._lock = asyncio.Lock()

    def inspect(self, request: ProxiedRequest) -> bool:
        """Set a request's tasks and prefixes, and of a preemptible one whether it is a stream.

        Return whether it is small; else `inspect_large` does the same. Raises HttpError.
        """
        message = request.exchange.request
        if message.size:
            request_body.check_encoding(message)
            if message.size > request_body.SMALL:
                return False
            locate = self._has_prefixes(message)
            request.tasks, members = request_body.inspect(message.path, message.body, locate=locate)
            if locate:
                self._set_prefixes(request, members)
            if request.preemptible and message.path in STREAMABLE:
                request.is_stream = wants_stream(message.body)
        return True

    async def inspect_large(
        self,
        request: ProxiedRequest,
        accept: Callable[[], None],
        reject: Callable[[HttpError], None],
    ) -> None:
        """Do the same for a large request, then call `accept` or `reject`.

        Neither is called if the client disconnects meanwhile. `accept` may raise HttpError.
        """
        exchange = request.exchange
        try:
            async with self._lock:
                if exchange.is_open:
                    message = exchange.request
                    locate = self._has_prefixes(message)
                    request.tasks, members = await request_body.inspect_large(
                        message.path, message.body, locate=locate
                    )
                    if locate:
                        self._set_prefixes(request, members)
                    if request.preemptible and message.path in STREAMABLE:
                        request.is_stream = await wants_stream_large(message.body)
            if exchange.is_open:
                accept()
        except HttpError as error:
            if exchange.is_open:
                reject(error)
        except Exception:
            _log.exception("inspection of a request failed")
            if exchange.is_open:
                reject(HttpError(500, "internal_error", "internal error inspecting the request"))
        finally:
            self.running -= 1

    def check(self, request: ProxiedRequest, key: str, replica: Replica | None = None) -> None:
        """Raise HttpError if a request is not to be sent: to `replica`, or on arrival to any.

        `key`: of its FlowKey.
        """
        self._crash_guard.check(request)
        if request.tasks is not ONE_TASK:
            slots = replica.slots if replica else self._dispatcher.slots_per_replica
            limit = self._dispatcher.running_limits.of(key)
            if limit and (needed := request.tasks.slots_on(slots)) > limit:
                raise responses.too_many_slots(needed, limit)
        message = request.exchange.request
        if message.size > UNLIMITED_BYTES:
            contexts = self._replicas.contexts
            context = contexts[replica.name] if replica else max(contexts.values(), default=0)
            slots = replica.slots if replica else self._dispatcher.slots_per_replica
            try:
                self.prompt_limits.check(
                    message.path, message.size, request.tasks, slots=slots, context=context
                )
            except HttpError:
                if request_body.is_object(message.path, message.beginning(_BEGINNING)):
                    raise
                # To raise the limit of a prompt would not help.
                raise HttpError(400, "invalid_json", "the body is not a JSON object") from None

    @staticmethod
    def _set_prefixes(request: ProxiedRequest, members: Members) -> None:
        request.prefixes = prefixes(request.exchange.request.path, members)
        request.uses_restored_slot = uses_restored_slot(members)

    def _has_prefixes(self, message: Request) -> bool:
        return (
            self._dispatcher.uses_prefixes
            and message.size >= MIN_PROMPT_BYTES
            and message.path in PREFIX_CACHED
        )
