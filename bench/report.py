"""Findings as Markdown and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.findings import Findings, Gate, Table

_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def markdown(title: str, findings: Sequence[Findings], about: Mapping[str, str]) -> str:
    """All tables under this title, then the gates."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    for each in findings:
        for table in each.tables:
            lines += ["", f"## {table.title}", "", *_table(table)]
    if gates := [gate for each in findings for gate in each.gates]:
        columns = ("gate", "bound", "figure", "")
        lines += ["", "## Gates", "", *_rows(columns, map(_verdict, gates))]
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Findings], about: Mapping[str, str]) -> dict[str, Any]:
    """All that is in the Markdown, and every piece's numbers."""
    return {"about": dict(about), "measures": [asdict(each) for each in findings]}


def _verdict(gate: Gate) -> tuple[str, ...]:
    return gate.name, gate.bound, gate.figure, _VERDICTS[gate.met]


def _table(table: Table) -> list[str]:
    lines = _rows(table.columns, table.rows)
    return [*lines, "", table.note] if table.note else lines


def _rows(columns: Sequence[str], rows: Any) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
