"""Looks at a balancer, one a second, as words or as lists; all of them end NOW."""

import re
from typing import Any

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.scaling.decide import Decision, ScalingInput, decide
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import Sample

NOW = 1_000_000.0


def policy(slots: int = 4, **spec: Any) -> Policy:
    """A policy in the API's own words, with three replicas at most."""
    return Policy(slots, Autoscaling.model_validate({"maxReplicas": 3, **spec}))


def sample(
    at: float,
    demand: int,
    mean: float | None = None,
    seconds: float | None = None,
    oldest: float = 0.0,
) -> Sample:
    """A look at a balancer with one ready replica of 4 slots."""
    busy = min(demand, 4)
    return Sample(at, busy, demand - busy, oldest, demand, 4, mean, seconds)


def played(script: str) -> list[Sample]:
    """The samples of a table's second column.

    `5 for 90 s, then 1` is a demand of 5 for 90 s and then one look that finds 1; `none for 9 s`
    is 9 s in which the balancer does not answer; `2 of 6 s each` says how long each keeps its slot.
    With `, oldest 3 s` the first of those that wait has done so for 3 s, else it has just come.
    The mean is that of the script so far.
    """
    looks: list[tuple[int, float | None, float] | None] = []
    for part in script.split(", then "):
        words = re.fullmatch(
            r"(none|\d+)(?: of ([\d.]+) s each)?(?:, oldest ([\d.]+) s)?(?: for (\d+) s)?", part
        )
        assert words, part
        seconds = float(words[2]) if words[2] else None
        look = None if words[1] == "none" else (int(words[1]), seconds, float(words[3] or 0))
        looks += [look] * (int(words[4]) + 1 if words[4] else 1)
    start = NOW - len(looks) + 1
    samples = list[Sample]()
    total = 0
    for n, look in enumerate(looks):
        if look is not None:
            total += look[0]
            demand, seconds, oldest = look
            mean = total / (len(samples) + 1)
            samples.append(sample(start + n, demand, mean, seconds, oldest))
    return samples


def known(policy: Policy, samples: list[Sample], *changes: Change) -> ScalingInput:
    """What a decision has to go by after these looks."""
    history = History()
    for one in samples:
        history = history.record(one.at, policy.required_replicas(one), keep=policy.history_seconds)
    return ScalingInput(samples[-1] if samples else None, history, changes)


def decided(policy: Policy, samples: list[Sample], current: int, *changes: Change) -> Decision:
    """The decision NOW."""
    return decide(policy, known(policy, samples, *changes), current=current, now=NOW)
