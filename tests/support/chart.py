"""The files of the Helm chart: values with their descriptions, and RBAC rules."""

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
    """One value of values.yaml with a description."""

    path: str
    default: Any
    description: str

    @property
    def row(self) -> str:
        """The row in the table of README.md."""
        default = json.dumps(self.default).replace("|", "\\|")
        return f"| `{self.path}` | `{default}` | {self.description} |"


def values() -> Json:
    """The defaults as a tree."""
    tree: Json = load("values.yaml")
    return tree


def described_values() -> Iterator[Value]:
    """All values with a `# --` comment, in the order of the file."""
    tree = values()
    for path, description in _descriptions((CHART / "values.yaml").read_text()).items():
        yield Value(path, _at(tree, path), description)


def undescribed_values() -> Iterator[str]:
    """Paths of values without a description of themselves or of a parent."""
    yield from _undescribed(values(), "", {value.path for value in described_values()})


def rules(name: str) -> list[Json]:
    """The RBAC rules in files/rbac/NAME.yaml."""
    loaded: list[Json] = load(f"files/rbac/{name}.yaml")
    return loaded


def load(path: str) -> Any:
    """Read one YAML or JSON file of the chart."""
    return yaml.safe_load((CHART / path).read_text())


def _undescribed(tree: Json, prefix: str, described: set[str]) -> Iterator[str]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in described:
            continue
        if isinstance(value, dict) and value:
            yield from _undescribed(value, f"{path}.", described)
        else:
            yield path


def _descriptions(text: str) -> dict[str, str]:
    descriptions: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    description = ""
    for line in text.splitlines():
        if comment := re.fullmatch(r"\s*# -- (.*)", line):
            description = comment[1]
        elif key := re.match(r"( *)(\w+):", line):
            indent = len(key[1])
            parents = [(depth, name) for depth, name in parents if depth < indent]
            parents.append((indent, key[2]))
            if description:
                descriptions[".".join(name for _, name in parents)] = description
            description = ""
    return descriptions


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree
