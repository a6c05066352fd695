"""What a measure has found: tables, gates and plots as values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` of cells as they are printed; the first column names the system."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """A bound that must hold; `met` is None where this run did not measure it."""

    name: str
    bound: str
    figure: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars by system: `series` maps a system to its values by group."""

    name: str
    title: str
    unit: str
    series: dict[str, dict[str, float]]
    log: bool = False


@dataclass(slots=True)
class Findings:
    """All of one measure."""

    name: str
    tables: list[Table] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    """Every piece's numbers, for whoever wants to look closer."""


def at_most(name: str, figure: float, bound: float, unit: str = "") -> Gate:
    """A gate that holds where `figure` does not exceed `bound`."""
    tail = f" {unit}" if unit else ""
    return Gate(name, f"<= {bound:g}{tail}", f"{digits(figure)}{tail}", figure <= bound)


def at_least(name: str, figure: float, bound: float) -> Gate:
    """A gate that holds where `figure` reaches `bound`."""
    return Gate(name, f">= {bound:g}", digits(figure), figure >= bound)


def digits(value: float) -> str:
    """A number with three digits, and all of those before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
