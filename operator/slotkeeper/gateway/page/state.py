"""What the page shows of the models, as JSON. Pure.

Statuses come from the cluster: each value is checked, and what cannot be shown is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from heapq import nlargest
from operator import itemgetter
from typing import Any

MAX_MODELS = 1000
MAX_EVENTS = 100
"""Scaling decisions of all models together, the newest."""
HISTORY_LENGTH = 10
"""Decisions of one model, as many as a status has."""
MAX_TEXT = 512
"""Characters of a message."""
_MAX_COUNT = 1_000_000

Tree = dict[str, Any]


@dataclass(frozen=True)
class PageModel:
    """One model, as the page lists it."""

    name: str
    """Name of the model for requests."""
    server: str
    """Name of its LlamaServer."""
    state: str
    """Ready, Waking, AtZero or Failed."""
    message: str = ""
    """Details of the state, for people."""
    aliases: Sequence[str] = ()
    status: Mapping[str, Any] | None = None
    """`status` of the LlamaServer, as the watch delivered it; None: not reported yet."""
    tokens_per_second: float | None = None
    """Generated tokens per second; None: not measured."""


def page_state(models: Iterable[PageModel], *, gateway: str, now: datetime) -> Tree:
    """Return the JSON tree of `/page/state.json` for these models, sorted by name.

    `gateway` is NAMESPACE/NAME of the LlamaGateway. Beyond MAX_MODELS models are only counted.
    """
    listed = sorted(models, key=lambda model: (model.name, model.server))
    shown = listed[:MAX_MODELS]
    return {
        "gateway": gateway,
        "updated": _rfc3339(now),
        "modelCount": len(listed),
        "models": [_model(model) for model in shown],
        "history": _history(shown),
    }


def _model(model: PageModel) -> Tree:
    status = _mapping(model.status)
    slots = _mapping(status.get("slots"))
    total = _count(slots.get("total"))
    rate = model.tokens_per_second
    return {
        "name": _text(model.name),
        "server": _text(model.server),
        "aliases": [_text(alias) for alias in model.aliases],
        "state": model.state,
        "message": _text(model.message),
        "replicas": _count(status.get("readyReplicas")),
        "slots": {"total": total, "busy": min(total, _count(slots.get("busy")))},
        "queued": _count(status.get("queued")),
        "tokensPerSecond": None if rate is None else round(rate, 1),
    }


def _history(models: Iterable[PageModel]) -> list[Tree]:
    """Return the newest scaling decisions of all models, newest first."""
    events = [event for model in models for event in _events(model)]
    return [
        {
            "model": _text(model.name),
            "server": _text(model.server),
            "time": _rfc3339(time),
            "from": _count(event.get("from")),
            "to": _count(event.get("to")),
            "reason": _text(event.get("reason")),
            "message": _text(event.get("message")),
        }
        for time, model, event in nlargest(MAX_EVENTS, events, key=itemgetter(0))
    ]


def _events(model: PageModel) -> Iterable[tuple[datetime, PageModel, Mapping[str, Any]]]:
    history = _mapping(_mapping(model.status).get("scaling")).get("history")
    for event in history[:HISTORY_LENGTH] if isinstance(history, list) else ():
        time = _time(_mapping(event).get("time"))
        if time is not None:
            yield time, model, event


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int:
    """Return a number of things; 0 for what is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return max(0, min(value, _MAX_COUNT))


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    # The first and the last year have times that no other time zone can express.
    return time if time and time.tzinfo and MINYEAR < time.year < MAXYEAR else None


def _rfc3339(time: datetime) -> str:
    """Format a time in UTC with milliseconds, which browsers parse too."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
