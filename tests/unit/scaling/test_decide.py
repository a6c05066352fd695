import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scaling.decide import LATCH_SECONDS, Policy, Reason, Sample, decide

POLICY = Policy(min_replicas=1, max_replicas=3, slots=4, quiet_seconds=60)
NOW = 1_000_000.0


def sample(at: float, demand: int) -> Sample:
    """A look at a balancer whose demand has been the same for long enough."""
    busy = min(demand, 4)
    return Sample(at=at, busy=busy, waiting=demand - busy, oldest_wait=0.0, peak=demand)


def played(script: str) -> list[Sample]:
    """The samples of a row's second column, one a second, that end NOW.

    `5 for 90 s, then 1` is a demand of 5 for 90 s and then one look that finds 1; `none for 9 s`
    is 9 s in which the balancer does not answer.
    """
    demands: list[int | None] = []
    for part in script.split(", then "):
        words = re.fullmatch(r"(none|\d+)(?: for (\d+) s)?", part)
        assert words, part
        demand = None if words[1] == "none" else int(words[1])
        demands += [demand] * (int(words[2]) + 1 if words[2] else 1)
    start = NOW - len(demands) + 1
    return [sample(start + n, demand) for n, demand in enumerate(demands) if demand is not None]


def rows() -> list[tuple[int, str, int, Reason]]:
    """The table in the docstring of `decide`."""
    lines = re.findall(
        r"^ *\| (\d+) +\| (.+?) +\| (\d+) +\| (\w+) +\|$", decide.__doc__ or "", re.MULTILINE
    )
    return [
        (int(current), script, int(wanted), Reason(reason))
        for current, script, wanted, reason in lines
    ]


@pytest.mark.parametrize(
    ("current", "script", "wanted", "reason"),
    [pytest.param(*row, id=f"{row[0]} replicas, {row[1]}: {row[3]}") for row in rows()],
)
def test_the_table_is_what_it_does(current: int, script: str, wanted: int, reason: Reason) -> None:
    decision = decide(POLICY, played(script), current=current, now=NOW)

    assert (decision.replicas, decision.reason) == (wanted, reason)


def test_the_table_shows_every_reason() -> None:
    assert {reason for _, _, _, reason in rows()} == set(Reason)


@pytest.mark.parametrize(
    ("samples", "current", "message"),
    [
        (
            [Sample(at=NOW, busy=8, waiting=3, oldest_wait=3.24, peak=11)],
            2,
            "busy 8/8, waiting 3, oldest 3.2 s: 2 -> 3",
        ),
        ([Sample(NOW, 1, 0, 0.0, 1)], 2, "busy 1/8, waiting 0: 2 stays"),
        ([Sample(NOW, 0, 0, 0.0, 6)], 1, "busy 0/4, waiting 0, lately 6: 1 -> 2"),
        (played("5 for 90 s"), 3, "busy 4/12, waiting 1, oldest 0.0 s, at most 5 for 60 s: 3 -> 2"),
        ([], 2, "no numbers from the balancer: 2 stays"),
        ([], 9, "no numbers from the balancer: 9 -> 3"),
    ],
)
def test_a_decision_says_why_in_slots(
    samples: Sequence[Sample], current: int, message: str
) -> None:
    assert decide(POLICY, samples, current=current, now=NOW).message == message


def test_a_request_between_two_looks_counts() -> None:
    missed = Sample(at=NOW, busy=0, waiting=0, oldest_wait=0.0, peak=5)

    assert decide(POLICY, [missed], current=1, now=NOW).replicas == 2


def test_a_peak_that_lags_behind_hides_nothing() -> None:
    lagging = Sample(at=NOW, busy=4, waiting=1, oldest_wait=0.0, peak=0)

    assert decide(POLICY, [lagging], current=1, now=NOW).replicas == 2


gaps = st.one_of(st.just(1.0), st.floats(0.1, 2 * LATCH_SECONDS))
looks = st.lists(st.tuples(gaps, st.integers(0, 40)), max_size=120)
policies = st.builds(
    lambda least, more, slots, quiet: Policy(least, least + more, slots, quiet),
    st.integers(1, 5),
    st.integers(0, 10),
    st.integers(1, 8),
    st.sampled_from([5.0, 20.0, 60.0]),
)
counts = st.integers(0, 20)


def timeline(looks: list[tuple[float, int]]) -> list[Sample]:
    """Samples with these gaps after them; the last one's reaches to NOW."""
    at = NOW
    samples = []
    for gap, demand in looks:
        at -= gap
        samples.append(sample(at, demand))
    return samples[::-1]


@given(policies, looks, counts)
def test_a_decision_is_within_the_bounds(
    policy: Policy, looks: list[tuple[float, int]], current: int
) -> None:
    decision = decide(policy, timeline(looks), current=current, now=NOW)

    assert policy.min_replicas <= decision.replicas <= policy.max_replicas


@given(policies, looks, counts)
def test_a_decision_carried_out_is_a_fixed_point(
    policy: Policy, looks: list[tuple[float, int]], current: int
) -> None:
    samples = timeline(looks)
    once = decide(policy, samples, current=current, now=NOW)

    twice = decide(policy, samples, current=once.replicas, now=NOW)

    assert twice.replicas == once.replicas


@given(policies, looks, counts, st.data())
def test_more_demand_never_means_fewer_replicas(
    policy: Policy, looks: list[tuple[float, int]], current: int, data: st.DataObject
) -> None:
    samples = timeline(looks)
    more = [replace(one, waiting=one.waiting + data.draw(st.integers(0, 9))) for one in samples]

    fewer = decide(policy, samples, current=current, now=NOW).replicas

    assert decide(policy, more, current=current, now=NOW).replicas >= fewer


@given(policies, looks, counts)
def test_nothing_goes_within_the_quiet_time(
    policy: Policy, looks: list[tuple[float, int]], current: int
) -> None:
    samples = [one for one in timeline(looks) if one.at > NOW - policy.quiet_seconds]

    decision = decide(policy, samples, current=current, now=NOW)

    assert decision.replicas >= policy.bounded(current)


@given(policies, looks, counts, st.floats(LATCH_SECONDS, 50, exclude_min=True))
def test_nothing_goes_while_the_balancer_says_nothing(
    policy: Policy, looks: list[tuple[float, int]], current: int, silence: float
) -> None:
    samples = timeline(looks)

    decision = decide(policy, samples, current=current, now=NOW + silence)

    assert decision.replicas == policy.bounded(current)


@given(st.integers(0, 50), st.integers(2, 3))
def test_nothing_goes_after_a_time_that_nobody_watched(start: int, current: int) -> None:
    # Six samples are missing, so that those beside them are 7 s apart.
    unwatched = [one for one in played("0 for 90 s") if not start < NOW - one.at <= start + 6]

    decision = decide(POLICY, unwatched, current=current, now=NOW)

    assert decision.replicas == current
