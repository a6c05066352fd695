"""The Helm chart as files: its values, what they say of themselves, and its rules."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts/slotkeeper"

Json = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """One described value of values.yaml."""

    path: str
    default: Any
    description: str

    @property
    def row(self) -> str:
        """Its row in the README's table."""
        default = json.dumps(self.default).replace("|", "\\|")
        return f"| `{self.path}` | `{default}` | {self.description} |"


def values() -> Json:
    """The defaults as a tree."""
    tree: Json = load("values.yaml")
    return tree


def described_values() -> Iterator[Value]:
    """Every value that has a `# --` comment, in the file's order."""
    tree = values()
    for path, description in _descriptions((CHART / "values.yaml").read_text()).items():
        yield Value(path, _at(tree, path), description)


def undescribed_values() -> Iterator[str]:
    """Paths of values that neither a comment of their own nor one above them describes."""
    yield from _undescribed(values(), "", {value.path for value in described_values()})


def rules(name: str) -> list[Json]:
    """The RBAC rules in files/rbac/NAME.yaml."""
    found: list[Json] = load(f"files/rbac/{name}.yaml")
    return found


def load(path: str) -> Any:
    """Read one YAML or JSON file of the chart."""
    return yaml.safe_load((CHART / path).read_text())


def _undescribed(tree: Json, above: str, described: set[str]) -> Iterator[str]:
    for key, value in tree.items():
        path = f"{above}{key}"
        if path in described:
            continue
        if isinstance(value, dict) and value:
            yield from _undescribed(value, f"{path}.", described)
        else:
            yield path


def _descriptions(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    description = ""
    for line in text.splitlines():
        if comment := re.fullmatch(r"\s*# -- (.*)", line):
            description = comment[1]
        elif key := re.match(r"( *)(\w+):", line):
            indent = len(key[1])
            above = [(depth, name) for depth, name in above if depth < indent]
            above.append((indent, key[2]))
            if description:
                found[".".join(name for _, name in above)] = description
            description = ""
    return found


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree
