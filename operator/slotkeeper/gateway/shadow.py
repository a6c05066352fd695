"""Copies of requests for another model, whose responses are thrown away, to compare the two.

A copy is sent only if the other server has an idle slot, and yields it to requests of clients. It
shares the bytes of the request's body, and affects the client's request in no way.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import override

from slotkeeper.edge import access
from slotkeeper.edge.routes import STREAMABLE
from slotkeeper.edge.usage import BodyEdges
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.targets import ShadowRule
from slotkeeper.wire.client import Pool
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Request, ResponseHead
from slotkeeper.wire.response_end import ResponseEnd

_log = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Copies in progress, of one gateway pod."""
MAX_BODY = 1024 * 1024
"""Bytes of a body that is copied. They are kept until they are sent, beyond the memory budget of
clients."""
MAX_SECONDS = 300.0
"""Of a copy."""

PREEMPTIBLE = (access.PREEMPTIBLE, b"true")
"""Header by which a balancer gives the slot to others as soon as they need it."""

Side = Literal["original", "shadow"]
Result = Literal["compared", "busy", "too_large", "limit", "failed", "disconnected"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One of two responses to compare."""

    code: int
    """Status; 0: no response."""
    seconds: float
    """From the request to the end of the response."""
    tokens: int
    """Generated ones; 0 if they are not known."""


@dataclass(slots=True)
class Pair:
    """A request of a client, and its copy."""

    model: str
    to: str
    measured: dict[Side, Measured] = field(default_factory=dict)
    canceled: bool = False
    task: "asyncio.Task[None] | None" = None


class Shadows:
    """Sends the copies. `now` returns the time in seconds.

    `pool` returns the connections to a model's server, `status` the status of a LlamaServer, by
    name; `record` is called with the result of each copy that was due, and with its pair if that
    can be compared.
    """

    def __init__(
        self,
        pool: Callable[[Model], Pool],
        status: Callable[[str], Mapping[str, Any] | None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float],
        record: Callable[[str, str, Result, Pair | None], None],
    ) -> None:
        self._pool = pool
        self._status = status
        self._spawn = spawn
        self._now = now
        self._record = record
        self._rules: Mapping[str, ShadowRule] = {}
        self._due: dict[str, int] = {}  # percent, by model
        self._running: list[Pair] = []

    def set(self, rules: Mapping[str, ShadowRule]) -> None:
        """Set the rules, by the name of the model whose requests are copied."""
        self._rules = rules
        self._due = {model: self._due.get(model, 0) for model in rules}

    def start(
        self, model: str, message: Request, encode_head: Callable[[Request], bytes]
    ) -> Pair | None:
        """Send a copy of a request for a model, if one is due and there is an idle slot."""
        rule = self._rules.get(model)
        if rule is None or message.path not in STREAMABLE or not self._is_due(model, rule):
            return None
        obstacle = self._obstacle(rule.to, message)
        if obstacle:
            self._record(model, rule.to.name, obstacle, None)
            return None
        pair = Pair(model, rule.to.name)
        self._running.append(pair)
        self._spawn(self._run(pair, rule.to, message.path, encode_head(message), message.parts))
        return pair

    def original_ended(self, pair: Pair, measured: Measured | None) -> None:
        """Record how the client's request ended; None: without a response that can be compared."""
        if measured is None:
            pair.canceled = True
            if pair.task:
                pair.task.cancel()
            return
        self._add(pair, "original", measured)

    def _is_due(self, model: str, rule: ShadowRule) -> bool:
        self._due[model] += rule.percent
        if self._due[model] < 100:
            return False
        self._due[model] -= 100
        return True

    def _obstacle(self, to: Model, message: Request) -> Result | None:
        if message.size > MAX_BODY:
            return "too_large"
        if len(self._running) >= MAX_RUNNING:
            return "limit"
        # The status is seconds old: copies since then occupy slots as well.
        own = sum(pair.to == to.name for pair in self._running)
        return (
            None if to.state == "Ready" and _idle_slots(self._status(to.server)) > own else "busy"
        )

    async def _run(
        self, pair: Pair, to: Model, path: bytes, head: bytes, parts: Sequence[bytes]
    ) -> None:
        pair.task = asyncio.current_task()
        started = self._now()
        response = _Response()
        try:
            if pair.canceled:
                return
            async with asyncio.timeout(MAX_SECONDS):
                await _send(self._pool(to), head, parts, response)
        except OSError as error:
            response.code = 0
            _log.debug("a copy for model %s failed: %s", to.name, error)
        finally:
            self._running.remove(pair)
            if pair.canceled:
                self._record(pair.model, pair.to, "disconnected", None)
        tokens = response.edges.tokens(path)
        generated = tokens.generated if tokens else 0
        self._add(pair, "shadow", Measured(response.code, self._now() - started, generated))

    def _add(self, pair: Pair, side: Side, measured: Measured) -> None:
        pair.measured[side] = measured
        if len(pair.measured) == 2:
            failed = pair.measured["shadow"].code == 0
            self._record(pair.model, pair.to, "failed" if failed else "compared", pair)


async def _send(pool: Pool, head: bytes, parts: Sequence[bytes], response: "_Response") -> None:
    """Send a request, and wait for the end of its response. Raises OSError."""
    connection = await pool.connect()
    connection.send(head, parts, response)
    try:
        await response.ended
    finally:
        if not response.complete:
            # A balancer notices a closed connection, and only then frees the slot.
            connection.abort()


class _Response(ResponseEnd):
    """Reads a response to its end, and keeps only what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.code = 0
        self.edges = BodyEdges()

    @override
    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        self.code = head.status

    @override
    def on_body(self, data: bytes, framing: Framing) -> None:
        self.edges.append(data)


def _idle_slots(status: Mapping[str, Any] | None) -> int:
    slots = (status or {}).get("slots")
    if not isinstance(slots, dict):
        return 0
    total, busy = slots.get("total"), slots.get("busy")
    return total - busy if type(total) is int and type(busy) is int else 0
