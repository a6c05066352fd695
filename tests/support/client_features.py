"""What the tests with client libraries prove, which docs/clients.md lists in a table."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CLIENTS = ("openai", "anthropic", "ollama", "litellm", "open_webui")
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


def proofs(folder: Path) -> dict[str, set[str]]:
    """Return the features that the tests of each client prove, in the order of docs/clients.md.

    The tests are not imported: their libraries are not installed everywhere.
    """
    found = {}
    for client in CLIENTS:
        tree = ast.parse((folder / f"test_{client}.py").read_text())
        found[client] = {
            argument.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == proves.__name__
            for argument in node.args
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        }
    return found
