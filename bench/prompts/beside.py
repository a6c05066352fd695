"""What prompt files cost requests that restore nothing: the same requests with them and without."""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median, quantiles

from bench.findings import Findings, Table, at_most, digits
from bench.prompts.testbed import Testbed

ON, OFF, CONTROL = "with files", "without", "without, again"
_WARM_UP = 20
_CHARACTERS = 2000
"""Of a prompt: two prefix hashes, which are compared with the files."""
_TOKENS = 8


def measure(testbeds: Mapping[str, Testbed], pairs: int) -> Findings:
    """Send each testbed the same requests, one after the other, in a random order each time."""
    seconds: dict[str, list[float]] = {name: [] for name in testbeds}
    shuffle = random.Random(0)
    with ExitStack() as stack:
        for testbed in testbeds.values():
            stack.enter_context(testbed)
            stack.enter_context(testbed.replica(testbed.hosts[0]))
        for number in range(-_WARM_UP, pairs):
            prompt = _prompt(number)
            for name in shuffle.sample(list(testbeds), len(testbeds)):
                began = time.monotonic()
                testbeds[name].ask(prompt, _TOKENS)
                if number >= 0:
                    seconds[name].append(time.monotonic() - began)
            if number % 100 == 0:
                print(f"{number} of {pairs} requests", file=sys.stderr)
        saves = testbeds[ON].metric("slotkeeper_balancer_prompt_saves_total")
        restores = testbeds[ON].metric("slotkeeper_balancer_prompt_restores_total")
    rows = [
        (
            name,
            f"{1000 * median(found):.2f} ms",
            f"{1000 * _p99(found):.2f} ms",
            digits(median(found) / median(seconds[OFF])),
            digits(_p99(found) / _p99(seconds[OFF])),
        )
        for name, found in seconds.items()
    ]
    note = (
        f"{pairs} prompts of {_CHARACTERS} characters that have no beginning in common, and "
        f"responses of {_TOKENS} tokens; each is sent to all systems, in a random order. "
        f"{saves:.0f} slots were saved meanwhile, {restores:.0f} restored. The last row shows how "
        "far two equal systems differ."
    )
    columns = ("prompt files", "p50", "p99", "p50, x without", "p99, x without")
    noise = max(1.0, median(seconds[CONTROL]) / median(seconds[OFF]))
    return Findings(
        "beside",
        [Table("Requests that restore nothing", columns, rows, note)],
        [
            at_most(
                "p50 with files, x without",
                median(seconds[ON]) / median(seconds[OFF]),
                round(1.05 * noise, 3),
            )
        ],
        raw=seconds,
    )


def _prompt(number: int) -> str:
    words = random.Random(number)
    text = " ".join(str(words.randrange(10**6)) for _ in range(_CHARACTERS // 5))
    return text[:_CHARACTERS]


def _p99(found: Sequence[float]) -> float:
    return quantiles(found, n=100)[98]
