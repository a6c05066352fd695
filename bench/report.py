"""Renders findings as Markdown and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.findings import Findings, Gate, Table

_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def markdown(title: str, findings: Sequence[Findings], environment: Mapping[str, str]) -> str:
    """Return a document with this title, the environment, all tables, then the gates."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {value}" for name, value in environment.items()]
    for each in findings:
        for table in each.tables:
            lines += ["", f"## {table.title}", "", *_table(table)]
    if gates := [gate for each in findings for gate in each.gates]:
        columns = ("gate", "target", "measured", "")
        lines += ["", "## Gates", "", *_rows(columns, map(_verdict, gates))]
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Findings], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of the Markdown document and the numbers of every sample."""
    return {"environment": dict(environment), "measures": [asdict(each) for each in findings]}


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
