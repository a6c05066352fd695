"""What the tests with client libraries prove, which docs/clients.md lists in a table."""

from collections.abc import Callable
from typing import TypeVar

FEATURES = (
    "models",
    "chat",
    "streaming",
    "tools",
    "JSON schema",
    "embeddings",
    "reranking",
    "token counts",
    "errors",
    "errors in a stream",
    "wake from zero",
    "cancel",
)

T = TypeVar("T", bound=Callable[..., object])


def proves(*features: str) -> Callable[[T], T]:
    """Mark a test as the proof that its client, the name of the file, can do these."""
    unknown = set(features).difference(FEATURES)
    if unknown:
        raise ValueError(f"unknown features: {unknown}")
    return lambda test: test
