"""Metrics of prompt files."""

from collections.abc import Iterator
from enum import StrEnum

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.edge.counters import Counter, Counters
from slotkeeper.scheduling.prompt_saves import SaveReason


class SaveFailure(StrEnum):
    """Why a slot was not saved."""

    REUSED = "reused"
    """Another request used the slot meanwhile."""
    NO_ROOM = "no_room"
    """The folder is full."""
    FAILED = "failed"
    """llama-server did not save it."""
    AGENT = "agent"
    """The agent did not respond, or rejected the file."""


class RestoreFailure(StrEnum):
    """Why a request was sent without a restore that was begun, or did not gain by it."""

    BUSY = "busy"
    """Other slots of the replica were saved or restored for too long."""
    GONE = "gone"
    """The file had been removed."""
    AGENT = "agent"
    """The agent did not respond."""
    SLOTS = "slots"
    """llama-server reported no idle slot."""
    FAILED = "failed"
    """llama-server did not restore it."""
    TIMEOUT = "timeout"
    """It took longer than to compute the prompt."""
    NOT_HONORED = "not_honored"
    """It was restored, and llama-server computed the prompt again."""


class Place(StrEnum):
    """Where llama-server found the cached tokens of a prompt."""

    SLOT = "slot"
    MEMORY = "memory"
    FILE = "file"


class PromptMetrics(Collector):
    """Counters; `prefix` begins their names."""

    def __init__(self, prefix: str) -> None:
        self.saves = Counters(
            f"{prefix}_prompt_saves",
            "Prompt files that were written.",
            "reason",
            list(SaveReason),
        )
        self.save_failures = Counters(
            f"{prefix}_prompt_save_failures",
            "Slots that were not saved, though it was begun.",
            "reason",
            list(SaveFailure),
        )
        self.restores = Counter(
            f"{prefix}_prompt_restores", "Prompt files that were restored for a request."
        )
        self.restore_failures = Counters(
            f"{prefix}_prompt_restore_failures",
            "Requests that gained nothing by a restore that was begun.",
            "reason",
            list(RestoreFailure),
        )
        self.bytes = Counters(
            f"{prefix}_prompt_bytes",
            "Size of the prompt files that were read and written.",
            "kind",
            ("read", "written"),
        )
        self.cached_tokens = Counters(
            f"{prefix}_prompt_cached_tokens",
            "Tokens of prompts that were found in a slot, in the replica's memory or in a prompt "
            "file, where that is known.",
            "place",
            list(Place),
        )

    @override
    def collect(self) -> Iterator[Metric]:
        for counter in (
            self.saves,
            self.save_failures,
            self.restores,
            self.restore_failures,
            self.bytes,
            self.cached_tokens,
        ):
            yield counter.family()
