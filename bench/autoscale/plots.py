"""Frontiers as PNG files: one file per trace, one plot per loading time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from bench.autoscale.frontier import frontier
from bench.autoscale.sweep import FIXED, SCHEDULED, SLOTKEEPER, Case, Point

_COLORS = {
    SLOTKEEPER: "#d62728",
    SCHEDULED: "#ff9896",
    "gpu": "#7f7f7f",
    "processing": "#1f77b4",
    "queue": "#9467bd",
    "average": "#2ca02c",
    FIXED: "#bcbd22",
}


def plot(results: Mapping[Case, Sequence[Point]], folder: Path) -> None:
    """Write `autoscale-TRACE.png` for each trace."""
    for trace in dict.fromkeys(case.trace for case in results):
        cases = [case for case in results if case.trace == trace]
        figure = Figure(figsize=(4 * len(cases), 3.6), layout="constrained")
        for axes, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
            for system, color in _COLORS.items():
                best = frontier(results[case], system)
                if not best:
                    continue
                axes.plot(
                    [point.cost_ratio for point in best],
                    [100 * point.service_level for point in best],
                    marker=".",
                    color=color,
                    label=system,
                )
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_title(f"{trace}, {case.load_seconds:g} s to load", fontsize=10)
            axes.set_xlabel("replica-seconds, × the oracle's")
            axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
        figure.axes[0].set_ylabel("% that waited ≤ 1 s")
        figure.savefig(folder / f"autoscale-{trace}.png", dpi=100)
