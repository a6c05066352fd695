"""How many slots of a llama-server one request occupies.

Source: tools/server/server-context.cpp of build 11434, checked against the /slots of build 11669.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Tasks(NamedTuple):
    """The tasks that llama-server makes of one request. Each takes a slot of its own."""

    inputs: int = 1
    """Prompts, inputs or documents. Those without a slot are queued inside llama-server."""
    completions: int = 1
    """Completions of each prompt. They start together, or are rejected if there are fewer slots."""

    @property
    def total(self) -> int:
        """All tasks: the slots that the request would use if a replica had enough."""
        return self.inputs * self.completions

    def slots_on(self, slots: int) -> int:
        """Return how many slots it occupies on a replica that has `slots`, at least 1."""
        # llama-server rejects more completions than slots at once.
        return max(1, min(slots, self.total)) if self.completions <= slots else 1

    def deferred_on(self, slots: int) -> int:
        """Return how many tasks are queued inside a replica that has `slots`."""
        return self.total - self.slots_on(slots) if self.completions <= slots else 0


ONE_TASK = Tasks()
"""What most requests are. `tasks_of` returns this object for them, which is compared quickly."""

_MIN_INT64, _MAX_UINT64 = -(2**63), 2**64 - 1
"""Between them llama-server reads a number as an integer, and keeps the lowest 32 bits of it."""
_COMPLETIONS = ("n_cmpl", "n")
INPUT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "/completion": ("prompt",),
    "/completions": ("prompt",),
    "/v1/completions": ("prompt",),
    "/embedding": ("input", "content"),
    "/embeddings": ("input", "content"),
    "/v1/embeddings": ("input", "content"),
    "/rerank": ("documents", "texts"),
    "/reranking": ("documents", "texts"),
    "/v1/rerank": ("documents", "texts"),
    "/v1/reranking": ("documents", "texts"),
}
"""By path, the fields that may contain several prompts, inputs or documents. The first one that is
present counts."""
COMPLETION_FIELDS: Mapping[str, tuple[str, ...]] = {
    "/completion": _COMPLETIONS,
    "/completions": _COMPLETIONS,
    "/v1/completions": _COMPLETIONS,
    "/chat/completions": _COMPLETIONS,
    "/v1/chat/completions": _COMPLETIONS,
    "/responses": _COMPLETIONS,
    "/v1/responses": _COMPLETIONS,
    "/infill": _COMPLETIONS,
}
"""By path, the fields that contain the number of completions. /v1/messages ignores them."""


def tasks_of(path: str, body: Any) -> Tasks:
    """Return the tasks of a request with this JSON body.

    One task where llama-server would reject the body: it does so before it needs a slot.
    """
    if not isinstance(body, dict):
        return ONE_TASK
    inputs = _first(body, INPUT_FIELDS.get(path, ()))
    completions = _first(body, COMPLETION_FIELDS.get(path, ()))
    if inputs is None and completions is None:
        return ONE_TASK
    tasks = Tasks(_count_inputs(inputs), _count_completions(completions))
    return ONE_TASK if tasks == ONE_TASK else tasks


def _first(body: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        value = body.get(name)
        if value is not None:
            return value
    return None


def _count_inputs(value: Any) -> int:
    if not isinstance(value, list):
        return 1
    # One prompt of tokens, or of tokens and strings.
    if any(isinstance(each, int) and not isinstance(each, bool) for each in value):
        return 1
    return max(1, len(value))


def _count_completions(value: Any) -> int:
    # llama-server truncates 2.9 to 2, takes true for 1, and 2 to the power of 32, plus 2, for 2.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 1
    if isinstance(value, int) and _MIN_INT64 <= value <= _MAX_UINT64:
        value = (value + 2**31) % 2**32 - 2**31
    return int(value) if 1 <= value < 1_000_000 else 1
