"""Models for the page: one of each state, and many."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from slotkeeper.gateway.page.state import PageModel

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def event(ago: float, before: int, after: int, reason: str, message: str) -> dict[str, Any]:
    """One entry of status.scaling.history, `ago` seconds before NOW."""
    time = (NOW - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"time": time, "from": before, "to": after, "reason": reason, "message": message}


def status(
    total: int, busy: int, queued: int, replicas: int, *history: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "readyReplicas": replicas,
        "slots": {"total": total, "busy": busy},
        "queued": queued,
        "scaling": {"desiredReplicas": replicas, "history": list(history)},
    }


def all_states() -> list[PageModel]:
    """A gateway at work."""
    return [
        PageModel(
            "codestral-22b",
            "codestral",
            "Waking",
            "1 replica is loading the model, 2 requests are queued",
            status=status(0, 0, 2, 0, event(38, 0, 1, "DemandAboveCapacity", "queued 2: 0 -> 1")),
            tokens_per_second=0,
        ),
        PageModel(
            "gemma-3-27b",
            "gemma",
            "AtZero",
            status=status(0, 0, 0, 0, event(2710, 1, 0, "Idle", "no request for 15 min: 1 -> 0")),
            tokens_per_second=0,
        ),
        PageModel(
            "llama-3.3-70b",
            "llama-70b",
            "Ready",
            aliases=("large",),
            status=status(8, 5, 0, 1),
            tokens_per_second=143.4,
        ),
        PageModel(
            "mistral-small",
            "mistral",
            "Failed",
            "ModelNotFound: https://models.example.com/mistral-small.gguf: status 404",
            status=status(0, 0, 0, 0),
            tokens_per_second=0,
        ),
        PageModel(
            "nomic-embed",
            "embeddings",
            "Ready",
            status=status(16, 2, 0, 1),
            tokens_per_second=None,
        ),
        PageModel(
            "qwen2.5-7b-instruct",
            "qwen",
            "Ready",
            aliases=("default", "gpt-4o-mini"),
            status=status(
                32,
                29,
                7,
                4,
                event(
                    122,
                    3,
                    4,
                    "QueueWaitAboveTarget",
                    "busy 24/24, queued 5, oldest 3.2 s: 3 -> 4",
                ),
                event(4020, 4, 3, "DemandBelowTarget", "peak demand 19/32 in 5 min: 4 -> 3"),
            ),
            tokens_per_second=612.8,
        ),
        PageModel(
            "qwen3-coder-480b",
            "coder",
            "Ready",
            status=status(192, 131, 0, 6, event(540, 5, 6, "DemandAboveCapacity", "busy 160/160")),
            tokens_per_second=1874.2,
        ),
    ]


def many(count: int) -> list[PageModel]:
    states = ("Ready", "Ready", "Ready", "AtZero", "Waking", "Failed")
    return [
        PageModel(
            f"model-{number:03}",
            f"server-{number:03}",
            states[number % 6],
            "ModelNotFound: status 404" if number % 6 == 5 else "",
            status=status(8, number % 9, number % 4, 1) if number % 6 < 3 else None,
            tokens_per_second=number * 1.5,
        )
        for number in range(count)
    ]
