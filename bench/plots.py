"""Draws plots as PNG files."""

from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt

from bench.findings import Plot

_COLORS = {
    "slotkeeper": "#d62728",
    "slotkeeper, access log": "#ff9896",
    "HAProxy": "#1f77b4",
    "nginx": "#2ca02c",
    "direct": "#7f7f7f",
    "ideal": "#bbbbbb",
    "round robin": "#9467bd",
    "random": "#8c564b",
}


def draw(plot: Plot, folder: Path) -> Path:
    """Draw one plot into `folder`; return the file's path."""
    groups = list(next(iter(plot.series.values())))
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    width = 0.8 / len(plot.series)
    for number, (name, values) in enumerate(plot.series.items()):
        offset = (number - (len(plot.series) - 1) / 2) * width
        bars = axes.bar(
            [index + offset for index in range(len(groups))],
            [values[group] for group in groups],
            width,
            label=name,
            color=_COLORS.get(name),
        )
        axes.bar_label(
            bars, fmt="%.3g", fontsize=7, rotation=90 if len(groups) > 2 else 0, padding=2
        )
    if plot.log:
        axes.set_yscale("log")
    axes.margins(y=0.2)
    axes.set_xticks(range(len(groups)), [fill(group, 16) for group in groups])
    axes.set_ylabel(plot.unit)
    axes.set_title(plot.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    path = folder / f"{plot.name}.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
