"""Samples of a balancer, one a second, as scripts or as lists; the last one is taken NOW."""

import re
from typing import Any

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.scaling.decide import Decision, ScalingInput, decide
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import Sample

NOW = 1_000_000.0

_PART = re.compile(
    r"(?P<demand>no data|\d+)(?P<preemptible> and preemptible requests)?"
    r"(?: \((?:service time (?P<service>[\d.]+) s)?(?:, )?(?:oldest (?P<oldest>[\d.]+) s)?\))?"
    r"(?: for (?P<seconds>\d+) s)?"
)


def policy(slots: int = 4, **spec: Any) -> Policy:
    """A policy from fields of spec.autoscaling; maxReplicas is 3 unless set."""
    return Policy(slots, Autoscaling.model_validate({"maxReplicas": 3, **spec}))


def sample(
    at: float,
    demand: int,
    mean: float | None = None,
    service_seconds: float | None = None,
    oldest: float = 0.0,
    preemptible: int = 0,
) -> Sample:
    """A sample with one ready replica of 4 slots."""
    busy = min(demand, 4)
    return Sample(
        at,
        busy,
        demand - busy,
        oldest,
        demand,
        4,
        mean,
        service_seconds,
        preemptible=preemptible,
    )


def samples_of(script: str) -> list[Sample]:
    """The samples of a script, as in the tables of `decide`.

    `5 for 90 s, then 1` is a demand of 5 for 90 s and then one sample with a demand of 1; `no data
    for 9 s` is 9 s without samples; `2 (service time 6 s)` has a mean service time. With `(oldest
    3 s)` the oldest queued request has waited for 3 s, else it has just arrived. `0 and preemptible
    requests` has nine of these besides. The mean demand is
    that of the script so far.
    """
    polls: list[tuple[int, float | None, float, int] | None] = []
    for part in script.split(", then "):
        match = _PART.fullmatch(part)
        assert match, part
        service_seconds = float(match["service"]) if match["service"] else None
        poll = (
            None
            if match["demand"] == "no data"
            else (
                int(match["demand"]),
                service_seconds,
                float(match["oldest"] or 0),
                9 if match["preemptible"] else 0,
            )
        )
        polls += [poll] * (int(match["seconds"]) + 1 if match["seconds"] else 1)
    start = NOW - len(polls) + 1
    taken = list[Sample]()
    total = 0
    for second, poll in enumerate(polls):
        if poll is not None:
            demand, service_seconds, oldest, preemptible = poll
            total += demand
            mean = total / (len(taken) + 1)
            at = start + second
            taken.append(sample(at, demand, mean, service_seconds, oldest, preemptible))
    return taken


def scaling_input(policy: Policy, samples: list[Sample], *changes: Change) -> ScalingInput:
    """The input of a decision after these samples and changes."""
    history = History()
    for each in samples:
        required = policy.required_replicas(each)
        history = history.record(each.at, required, keep=policy.history_seconds)
    return ScalingInput(samples[-1] if samples else None, history, changes)


def decision_for(policy: Policy, samples: list[Sample], current: int, *changes: Change) -> Decision:
    """The decision NOW."""
    return decide(policy, scaling_input(policy, samples, *changes), current=current, now=NOW)
