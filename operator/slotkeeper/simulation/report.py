"""What became of a trace, policy by policy: a table, a list of changes, a plot."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path

from slotkeeper.simulation.simulate import Outcome

_COLUMNS = ("policy", "p50", "p95", "p99", "longest", "<= 1 s", "replica-hours", "up", "down")


def share_within(waits: Sequence[float], seconds: float) -> float:
    """The share of waits, 0 to 1, that were not longer."""
    return sum(wait <= seconds for wait in waits) / len(waits)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ranked = sorted(values)
    return ranked[max(ceil(len(ranked) * percent / 100) - 1, 0)]


def table(outcomes: Mapping[str, Outcome]) -> str:
    """One line a policy: seconds of waiting, replica-hours, how often there were more or fewer."""
    rows = [_COLUMNS, *(_row(name, outcome) for name, outcome in outcomes.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _row(name: str, outcome: Outcome) -> tuple[str, ...]:
    steps = [after - before for (_, before), (_, after) in pairwise(outcome.changes)]
    return (
        name,
        *(f"{percentile(outcome.waits, percent):.1f} s" for percent in (50, 95, 99, 100)),
        f"{100 * share_within(outcome.waits, 1):.1f} %",
        f"{outcome.replica_seconds / 3600:.2f}",
        str(sum(step > 0 for step in steps)),
        str(sum(step < 0 for step in steps)),
    )


def clock(seconds: float) -> str:
    """Seconds of a trace as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def draw(outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Write a plot of the replicas over time, and of how many waited for how long.

    Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import, and only needed here)

    figure = Figure(figsize=(9, 6), layout="constrained")
    over_time, waits = figure.subplots(2, 1)
    for name, outcome in outcomes.items():
        times, replicas = zip(*_steps(outcome), strict=True)
        over_time.step([time / 60 for time in times], replicas, where="post", label=name)
        ranked = sorted(outcome.waits)
        parts = [100 * (number + 1) / len(ranked) for number in range(len(ranked))]
        waits.step([max(wait, 0.01) for wait in ranked], parts, where="post", label=name)
    over_time.set(xlabel="minutes", ylabel="replicas wanted")
    waits.set(xlabel="seconds until a slot", ylabel="% of the requests", xscale="log")
    for axes in (over_time, waits):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def _steps(outcome: Outcome) -> Iterator[tuple[float, int]]:
    yield from outcome.changes
    yield outcome.seconds, outcome.changes[-1][1]
