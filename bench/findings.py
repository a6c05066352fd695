"""Results of a measurement: tables, gates and plots."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A table of formatted cells. The first column is the name of the system."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """A target for a measured number; `met` is None if this run did not measure it."""

    name: str
    bound: str
    figure: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Plot:
    """A bar chart; `series` maps each system to its values by group."""

    name: str
    title: str
    unit: str
    series: dict[str, dict[str, float]]
    log: bool = False


@dataclass(slots=True)
class Findings:
    """All results of one measurement."""

    name: str
    tables: list[Table] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    """The numbers of every sample."""


def at_most(name: str, figure: float, bound: float, unit: str = "") -> Gate:
    """Return a gate that is met if `figure` does not exceed `bound`."""
    tail = f" {unit}" if unit else ""
    return Gate(name, f"<= {bound:g}{tail}", f"{digits(figure)}{tail}", figure <= bound)


def at_least(name: str, figure: float, bound: float) -> Gate:
    """Return a gate that is met if `figure` is at least `bound`."""
    return Gate(name, f">= {bound:g}", digits(figure), figure >= bound)


def digits(value: float) -> str:
    """Format a number with three significant digits, and all digits before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
