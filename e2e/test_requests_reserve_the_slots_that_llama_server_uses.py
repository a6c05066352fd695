"""A request with several prompts or completions reserves as many slots as llama-server uses."""

import json
import sys

import pytest

from servers import SLOW, Server, spec
from stack import ROOT

SLOTS = 4
TOKENS = 250

ONE_BY_ONE = {
    # Prompts and completions of one request: busy slots, and tasks deferred by llama-server.
    (1, 1): (1, 0),
    (1, 2): (2, 0),
    (1, 4): (4, 0),
    (3, 1): (3, 0),
    (2, 2): (4, 0),
    (6, 1): (4, 2),
}


def body(prompts: int, completions: int) -> dict[str, object]:
    # Not equal, or llama-server would reuse one prompt's cache for the next.
    texts = [f"{number} is a number" for number in range(prompts)]
    return {
        "prompt": texts if prompts > 1 else texts[0],
        "n": completions,
        "n_predict": TOKENS,
        "ignore_eos": True,
    }


@pytest.fixture
def ready(server: Server) -> Server:
    server.ready(spec(SLOW, slots=SLOTS))
    return server


def observe(server: Server, *groups: list[dict[str, object]]) -> list[list[int]]:
    script = str(ROOT / "e2e/request_slots.py")
    [replica] = server.replica_addresses()
    lines = "".join(json.dumps(group) + "\n" for group in groups)
    printed = server.cluster.read(
        "run", sys.executable, script, server.url, f"http://{replica}", stdin=lines
    )
    return [json.loads(line) for line in printed.splitlines()]


def test_the_balancer_counts_the_slots_that_llama_server_uses(ready: Server) -> None:
    observed = observe(ready, *([body(*shape)] for shape in ONE_BY_ONE))

    expected = [[busy, deferred, busy] for busy, deferred in ONE_BY_ONE.values()]
    assert dict(zip(ONE_BY_ONE, observed, strict=True)) == dict(
        zip(ONE_BY_ONE, expected, strict=True)
    )


def test_requests_of_all_sizes_are_never_deferred(ready: Server) -> None:
    shapes = [shape for shape, (_, deferred) in ONE_BY_ONE.items() if not deferred] * 4

    [[busy, deferred, _]] = observe(ready, [body(*shape) for shape in shapes])

    assert (busy, deferred) == (SLOTS, 0)
