"""Which targets a request is sent to, in which order. Pure."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping

from slotkeeper.gateway.models import Model
from slotkeeper.gateway.target_config import Trigger
from slotkeeper.gateway.targets import BackendModel, Named, Plan, Target, Weighted
from slotkeeper.wire.message import Request

Fallbacks = Mapping[str, tuple[tuple[Target, ...], frozenset[Trigger]]]
"""The targets in place of another one, and when; by the name of that or of a route."""

_SCANNED = 64 * 1024
"""Bytes of a body in which the beginning of a conversation is looked for."""
_MESSAGES = re.compile(rb'"(?:messages|input)"[ \t\r\n]*:[ \t\r\n]*\[')
_DECODER = json.JSONDecoder()
_SEPARATORS = " \t\r\n,"


def make_plan(
    named: Named,
    fallbacks: Fallbacks,
    conversation: Callable[[], float],
    pause: Callable[[str], float],
) -> Plan:
    """Return the plan of a request for what a name stands for.

    `conversation` returns the point of the request's conversation, `pause` for how long an external
    backend gets no requests. Fallbacks of fallbacks do not apply, so that no plan is endless.
    """
    target = named.choose(conversation()) if isinstance(named, Weighted) else named
    found = fallbacks.get(named.name) or fallbacks.get(target.name)
    if found is None:
        return Plan((target,), reports_model=target is not named)
    others, on = found
    targets = tuple(dict.fromkeys((target, *others)))
    skipped: list[tuple[Target, Trigger]] = []
    for each in targets:
        trigger = _known_trigger(each, pause)
        if trigger is None or trigger not in on:
            return Plan(targets[len(skipped) :], on, True, tuple(skipped))
        skipped.append((each, trigger))
    # None is better than the first one.
    return Plan(targets, on, reports_model=True)


def conversation_point(message: Request) -> float:
    """Return a number from 0 to below 1, the same for all requests of a conversation.

    It follows from the header X-Session-Id, or from the messages up to the first one of the user:
    later requests of a conversation begin with the same ones. The same number in each gateway pod.
    """
    session = message.header(b"x-session-id")
    beginning = session or _beginning(message.beginning(_SCANNED)[:_SCANNED])
    return int.from_bytes(hashlib.blake2b(beginning, digest_size=6).digest(), "big") / 2**48


def _known_trigger(target: Target, pause: Callable[[str], float]) -> Trigger | None:
    """Return what is known to be wrong with a target before it is tried."""
    if isinstance(target, BackendModel):
        return "Failed" if pause(target.server) else None
    if target.state == "Failed":
        return "Failed"
    return None if target.state == "Ready" else "Waking"


def waking(plan: Plan) -> Model | None:
    """Return the model that a plan skips because it has no ready replica; None: there is none."""
    for target, trigger in plan.skipped:
        if trigger == "Waking" and isinstance(target, Model):
            return target
    return None


def _beginning(body: bytes) -> bytes:
    """Return the messages up to the first one of the user; of other bodies all."""
    match = _MESSAGES.search(body)
    if match is None:
        return body
    text = body[match.end() :].decode(errors="replace")
    at = 0
    while True:
        while at < len(text) and text[at] in _SEPARATORS:
            at += 1
        try:
            message, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            # The end of the list, or a message that is too long.
            return text[: at or None].encode()
        if isinstance(message, dict) and message.get("role") == "user":
            return text[:at].encode()
