import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = ROOT / "operator"

MAX_LINES = 500
"""Of a module: a longer one is hard to hold in one's head. ruff bounds the complexity of each
function (C90, PLR), which matters more."""

LONGER: dict[str, str] = {}
"""Modules that may be longer, each with the reason."""


def sources(folder: Path) -> Iterator[Path]:
    """All modules below a folder. Fails where there are none: the folder has moved."""
    found = sorted(folder.glob("**/*.py"))
    assert found, f"no Python file below {folder}"
    return iter(found)


def test_operator_is_a_source_root_and_never_a_package() -> None:
    # It would shadow the standard library's `operator`.
    assert OPERATOR.is_dir()
    assert not (OPERATOR / "__init__.py").exists()


def test_each_package_has_a_summary_of_one_line() -> None:
    for folder in {file.parent for file in sources(OPERATOR / "slotkeeper")}:
        summary = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert summary, folder
        assert len(summary.splitlines()[0]) <= 100, folder


def test_no_module_is_too_long_to_read() -> None:
    for root in ("operator", "images", "e2e", "bench", "tests"):
        for file in sources(ROOT / root):
            name = str(file.relative_to(ROOT))
            lines = len(file.read_text().splitlines())
            assert (lines > MAX_LINES) == (name in LONGER), f"{name} has {lines} lines"
