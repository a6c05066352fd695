"""What is stored of a file and of a batch, and their form in OpenAI's API. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from slotkeeper.api import paths

ENDPOINTS = frozenset(
    path
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
    if path in paths.PROXIED
)
"""Paths of the requests of a batch."""

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
FINISHED = ("failed", "completed", "expired", "cancelled")
"""The states in which nothing happens any more."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. Times are seconds since 1970."""

    id: str
    owner: str
    """Name of the API key; empty without keys."""
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None

    def tree(self) -> Json:
        """Return OpenAI's File."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(slots=True)
class Batch:
    """A batch. Times are seconds since 1970."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    output_file_id: str
    """Its file exists from the first result on, and is listed when the batch has ended."""
    error_file_id: str
    metadata: Mapping[str, str] | None = None
    output_seconds: int | None = None
    """Seconds until the files with results expire; None: those of all files."""
    status: BatchStatus = "validating"
    times: dict[str, int] = field(default_factory=dict)
    """When it got each status: in_progress_at and so on."""
    errors: list[Json] = field(default_factory=list)
    """Why it failed."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_bytes: int = 0
    """Bytes of results that count: what a file contains beyond them is not complete."""
    error_bytes: int = 0
    done: bytes = b""
    """A bit for each line of the input whose result counts."""

    @property
    def finished(self) -> bool:
        """Whether the batch has ended."""
        return self.status in FINISHED

    def tree(self) -> Json:
        """Return OpenAI's Batch."""
        ended = self.finished
        names = (
            "in_progress",
            "finalizing",
            "completed",
            "failed",
            "expired",
            "cancelling",
            "cancelled",
        )
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id if ended and self.output_bytes else None,
            "error_file_id": self.error_file_id if ended and self.error_bytes else None,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **{f"{name}_at": self.times.get(f"{name}_at") for name in names},
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": None if self.metadata is None else dict(self.metadata),
        }


def is_done(done: bytes, line: int) -> bool:
    """Whether the result of a line counts."""
    return line >> 3 < len(done) and bool(done[line >> 3] >> (line & 7) & 1)


def with_done(done: bytes, lines: list[int], total: int) -> bytes:
    """Return the bits with those of these lines set; `total`: number of lines."""
    bits = bytearray(done.ljust((total + 7) // 8, b"\0"))
    for line in lines:
        bits[line >> 3] |= 1 << (line & 7)
    return bytes(bits)
