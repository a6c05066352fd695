import json

import pytest

from slotkeeper.llamacpp.tasks import Tasks, tasks_of

OBSERVED = {
    # Body on /completion: slots and deferred tasks that llama-server b11669 with 4 slots showed.
    '{"prompt": "abc"}': (1, 0),
    '{"prompt": "abc", "n": 2}': (2, 0),
    '{"prompt": "abc", "n_cmpl": 3, "n": 1}': (3, 0),
    '{"prompt": "abc", "n_cmpl": null, "n": 2}': (2, 0),
    '{"prompt": ["a", "b", "c"]}': (3, 0),
    '{"prompt": ["a", "b", "c", "d", "e", "f"]}': (4, 2),
    '{"prompt": [5, 6, 7]}': (1, 0),
    '{"prompt": ["a", 6, "c"]}': (1, 0),
    '{"prompt": [[5, 6], [7]]}': (2, 0),
    '{"prompt": [{"prompt_string": "abc"}, "d"]}': (2, 0),
    '{"prompt": {"prompt_string": "abc"}}': (1, 0),
    '{"prompt": ["a", "b"], "n": 2}': (4, 0),
    '{"prompt": "a", "n": 2.9}': (2, 0),
    '{"prompt": "a", "n": 2e0}': (2, 0),
    '{"prompt": "a", "n": true}': (1, 0),
    '{"prompt": "a", "n": 1, "n": 2}': (2, 0),
    '{"prompt": "a", "n": 2, "n": 1}': (1, 0),
    '{"prompt": "a", "\\u006e": 2}': (2, 0),
    '{"prompt": "a", "x": {"n": 2}}': (1, 0),
    # It keeps the lowest 32 bits of an integer.
    '{"prompt": "a", "n": 4294967298}': (2, 0),
    '{"prompt": "a", "n": -4294967294}': (2, 0),
    '{"prompt": "a", "n": 9223372036854775810}': (2, 0),
    # Rejected, before any slot is used.
    '{"prompt": "a", "n": 5}': (1, 0),
    '{"prompt": "a", "n": "2"}': (1, 0),
    '{"prompt": "a", "n": -1}': (1, 0),
    '{"prompt": "a", "n": 4294967298.0}': (1, 0),
    '{"prompt": "a", "n": 2147483650}': (1, 0),
    '{"prompt": "a", "n": 18446744073709551618}': (1, 0),
    '{"prompt": []}': (1, 0),
    "[]": (1, 0),
}


@pytest.mark.parametrize(("body", "observed"), OBSERVED.items(), ids=OBSERVED)
def test_a_completion_has_as_many_tasks_as_observed(body: str, observed: tuple[int, int]) -> None:
    tasks = tasks_of("/completion", json.loads(body))

    assert (tasks.slots_on(4), tasks.deferred_on(4)) == observed


@pytest.mark.parametrize(
    ("path", "body", "tasks"),
    [
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2}, (2, 2)),
        ("/v1/chat/completions", {"messages": [], "n": 2}, (1, 2)),
        ("/chat/completions", {"messages": [], "n_cmpl": 2}, (1, 2)),
        ("/v1/chat/completions", {"messages": [], "prompt": ["a", "b", "c"]}, (1, 1)),
        ("/v1/responses", {"input": ["a", "b"], "n": 2}, (1, 2)),
        ("/infill", {"prompt": "a", "n": 2}, (1, 2)),
        ("/v1/messages", {"messages": [], "n": 2}, (1, 1)),
        ("/v1/embeddings", {"input": ["a", "b", "c"], "n": 2}, (3, 1)),
        ("/v1/embeddings", {"input": [1, 2, 3]}, (1, 1)),
        ("/embedding", {"content": ["a", "b"]}, (2, 1)),
        ("/embeddings", {"input": "a", "content": ["a", "b"]}, (1, 1)),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b", "c"]}, (3, 1)),
        ("/rerank", {"query": "q", "texts": ["a", "b"]}, (2, 1)),
        ("/tokenize", {"content": ["a", "b"]}, (1, 1)),
    ],
)
def test_the_tasks_of_other_paths(path: str, body: object, tasks: tuple[int, int]) -> None:
    assert tasks_of(path, body) == tasks


@pytest.mark.parametrize(
    ("tasks", "slots", "used", "deferred"),
    [
        (Tasks(), 0, 1, 0),
        (Tasks(8), 2, 2, 6),
        (Tasks(3, 2), 4, 4, 2),
        (Tasks(3, 2), 5, 5, 1),
        (Tasks(1, 3), 2, 1, 0),
        (Tasks(9, 3), 2, 1, 0),
    ],
)
def test_a_request_uses_at_most_all_slots(
    tasks: Tasks, slots: int, used: int, deferred: int
) -> None:
    assert (tasks.slots_on(slots), tasks.deferred_on(slots)) == (used, deferred)
