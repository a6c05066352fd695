"""The tables of flags, fields and chart values in the documents are those of the code."""

import argparse
import re
from collections.abc import Callable
from typing import Any

import pytest

from chart import described_values
from documents import DOCS, codes, first_codes, section, table
from slotkeeper.__main__ import COMMANDS
from slotkeeper.api.crd import crd
from slotkeeper.balancer import options
from slotkeeper.batches import options as batches_options
from slotkeeper.gateway import options as gateway_options
from slotkeeper.reconcile import main as operator

COMMAND_LINE = (DOCS / "reference/command-line.md").read_text()


def flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return a command's flags without those of all commands."""
    shared = {"-h", "--log-format", "--log-level"}
    return [each for each in parser._actions if not shared & {*each.option_strings}]


def test_the_balancers_flags_are_complete() -> None:
    rows = table(COMMAND_LINE, "flag", "field", "default", "meaning")
    actions = flags(options._parser())

    assert [code.split(" ")[0] for code in first_codes(rows)] == [
        flag for action in actions for flag in action.option_strings
    ]
    for code in first_codes(rows):
        flag, _, metavar = code.partition(" ")
        [action] = [each for each in actions if flag in each.option_strings]
        assert metavar == (action.metavar or "")


def test_the_balancers_defaults_are_those_of_its_flags() -> None:
    actions = {flag: each for each in flags(options._parser()) for flag in each.option_strings}
    compared = 0
    for row in table(COMMAND_LINE, "flag", "field", "default", "meaning"):
        action = actions[codes(row[0])[0].split(" ")[0]]
        if isinstance(action.default, bool):
            assert row[2] == ("on" if action.default else "off")
        elif isinstance(action.default, int | float):
            assert re.match(r"[0-9]+", row[2]), row
            assert float(re.split(r"[:;]", row[2])[0]) == action.default
        elif action.required:
            assert row[2] == "required"
        else:
            continue
        compared += 1
    assert compared > 10


@pytest.mark.parametrize(
    ("heading", "parser"),
    [("## Gateway", gateway_options._parser), ("## Batches", batches_options._parser)],
)
def test_the_flags_of_a_gateway_are_complete(
    heading: str, parser: Callable[[], argparse.ArgumentParser]
) -> None:
    rows = table(section(COMMAND_LINE, heading), "flag", "default", "meaning")
    actions = flags(parser())

    assert [code.split(" ")[0] for code in first_codes(rows)] == [
        flag for action in actions for flag in action.option_strings
    ]
    for row in rows:
        flag, _, metavar = codes(row[0])[0].partition(" ")
        [action] = [each for each in actions if flag in each.option_strings]
        assert metavar == (action.metavar or "")
        if isinstance(action.default, bool):
            assert row[1] == ("on" if action.default else "off")
        elif isinstance(action.default, int | float):
            assert float(row[1]) == action.default
        elif action.required:
            assert row[1] == "required"


def test_the_operators_flags_are_complete() -> None:
    rows = table(section(COMMAND_LINE, "## Operator"), "flag", "default", "chart value")
    actions = flags(operator._parser())

    assert [code.split(" ")[0] for code in first_codes(rows)] == [
        flag for action in actions for flag in action.option_strings
    ]
    for row, action in zip(rows, actions, strict=True):
        if action.required:
            assert row[1] == "required"
        elif action.default:
            default = action.default
            assert row[1].strip("`") == (f"{default:g}" if isinstance(default, float) else default)


def test_the_commands_are_complete() -> None:
    rows = table(COMMAND_LINE, "command", "process")

    assert first_codes(rows) == [f"slotkeeper {command}" for command in COMMANDS]


def test_each_field_of_a_flag_exists() -> None:
    (version,) = crd()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    named = [
        code
        for row in table(COMMAND_LINE, "flag", "field", "default", "meaning")
        for code in codes(row[1])
    ]

    assert len(named) > 10
    for code in named:
        for start in (spec["balancer"]["properties"], spec):
            tree: Any = {"properties": start}
            for step in code.split("."):
                tree = tree.get("properties", {}).get(step, {})
            if tree:
                break
        assert tree, code


def test_each_value_of_the_chart_exists() -> None:
    existing = {value.path for value in described_values()}
    named = [
        code
        for page, header in (
            ("install.md", ("value", "default", "set it to")),
            ("reference/command-line.md", ("flag", "default", "chart value")),
        )
        for row in table((DOCS / page).read_text(), *header)
        for code in codes(row[0] if header[0] == "value" else row[2])
        if not code.startswith(".")
    ]

    assert len(named) > 10
    for code in named:
        pattern = re.escape(code).replace(r"\*", r"\w+")
        assert any(re.match(rf"{pattern}($|\.)", value) for value in existing), code
