"""Simulation results by policy: a table and a plot."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path

from slotkeeper.simulation.simulate import SimulationResult

_COLUMNS = ("policy", "p50", "p95", "p99", "max", "<= 1 s", "replica-hours", "up", "down")


def share_within(waits: Sequence[float], seconds: float) -> float:
    """Return the share of waits, 0 to 1, of at most `seconds`."""
    return sum(wait <= seconds for wait in waits) / len(waits)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the values do not exceed."""
    ranked = sorted(values)
    return ranked[max(ceil(len(ranked) * percent / 100) - 1, 0)]


def table(results: Mapping[str, SimulationResult]) -> str:
    """Return one line per policy: queue waits, replica-hours, scale-ups and scale-downs."""
    rows = [_COLUMNS, *(_row(name, result) for name, result in results.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _row(name: str, result: SimulationResult) -> tuple[str, ...]:
    steps = [after - before for (_, before), (_, after) in pairwise(result.changes)]
    return (
        name,
        *(f"{percentile(result.waits, percent):.1f} s" for percent in (50, 95, 99, 100)),
        f"{100 * share_within(result.waits, 1):.1f} %",
        f"{result.replica_seconds / 3600:.2f}",
        str(sum(step > 0 for step in steps)),
        str(sum(step < 0 for step in steps)),
    )


def format_time(seconds: float) -> str:
    """Format a time in a trace as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def plot(results: Mapping[str, SimulationResult], path: Path) -> None:
    """Plot the desired replicas over time, and the distribution of the queue waits.

    Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import, and only needed here)

    figure = Figure(figsize=(9, 6), layout="constrained")
    over_time, waits = figure.subplots(2, 1)
    for name, result in results.items():
        times, replicas = zip(*_steps(result), strict=True)
        over_time.step([time / 60 for time in times], replicas, where="post", label=name)
        ranked = sorted(result.waits)
        shares = [100 * (number + 1) / len(ranked) for number in range(len(ranked))]
        waits.step([max(wait, 0.01) for wait in ranked], shares, where="post", label=name)
    over_time.set(xlabel="minutes", ylabel="desired replicas")
    waits.set(xlabel="queue wait, seconds", ylabel="% of requests", xscale="log")
    for axes in (over_time, waits):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def _steps(result: SimulationResult) -> Iterator[tuple[float, int]]:
    yield from result.changes
    yield result.seconds, result.changes[-1][1]
