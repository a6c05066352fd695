"""The folders' README files agree with the folders, and their commands are valid."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.balancer import __main__ as bench_balancer
from bench.gateway import __main__ as bench_gateway
from bench.reconcile import __main__ as bench_reconcile
from provider import cli
from slotkeeper.api.crd import crd
from slotkeeper.api.problem_reasons import Reason

ROOT = Path(__file__).resolve().parents[2]
READMES = [
    ROOT / folder / "README.md" for folder in ("bench", "e2e", "examples", "images", "tests")
]
DOCUMENTS = [*READMES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
BENCHMARKS = {
    "bench.balancer": bench_balancer.BENCHMARK.parser,
    "bench.gateway": bench_gateway.BENCHMARK.parser,
    "bench.reconcile": bench_reconcile._parser,
}

each_readme = pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def commands(document: Path) -> list[list[str]]:
    lines = re.findall(r"^\$ (.*)$", document.read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_make_has_nothing_to_warn_of() -> None:
    result = subprocess.run(
        ("make", "--no-print-directory", "help"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stderr == ""


@each_document
def test_each_make_target_exists(document: Path) -> None:
    named = set(re.findall(r"(?:`|\$ |run )make ([a-z0-9-]+)", document.read_text()))
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert named <= targets


@each_readme
def test_each_test_that_a_command_names_exists(readme: Path) -> None:
    selected = [word[2:] for command in commands(readme) for word in command if word[:2] == "T="]

    assert [path for path in selected if "/" in path and not (ROOT / path).exists()] == []


@each_readme
def test_each_cluster_command_is_valid(readme: Path) -> None:
    for command in commands(readme):
        if command[0] == "./e2e/cluster":
            cli.command_line().parse_args(command[1:])


@each_readme
def test_each_benchmark_command_is_valid(readme: Path) -> None:
    for command in commands(readme):
        if "-m" in command and "--help" not in command:
            _, module, *arguments = command[command.index("-m") :]
            BENCHMARKS[module]().parse_args(arguments)


@each_document
def test_each_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())

    assert [
        link for link in links if "://" not in link and not (document.parent / link).exists()
    ] == []


@each_readme
def test_each_file_in_the_first_column_of_a_table_exists(readme: Path) -> None:
    # The list of images has names without a slash or a suffix, which are folders.
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", readme.read_text(), re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^` ]+)`", cell)]

    assert [name for name in names if not list(readme.parent.glob(name.strip("/")))] == []


@pytest.mark.parametrize(
    ("folder", "entries"),
    [
        ("examples", {path.name for path in (ROOT / "examples").glob("*.yaml")}),
        ("images", {path.parent.name for path in (ROOT / "images").glob("*/Containerfile")}),
    ],
)
def test_the_table_lists_the_whole_folder(folder: str, entries: set[str]) -> None:
    text = (ROOT / folder / "README.md").read_text()

    assert set(re.findall(r"^\| (?:\[|`)([\w.-]+)(?:\]|`)", text, re.MULTILINE)) == entries


def test_the_new_fields_in_the_changelog_exist() -> None:
    [version] = crd()["spec"]["versions"]

    assert new_names("Fields of LlamaServer") <= set(fields(version["schema"]["openAPIV3Schema"]))


def test_the_new_reasons_in_the_changelog_exist() -> None:
    assert new_names("Reasons of conditions") <= set(Reason)


def new_names(section: str) -> set[str]:
    """The names in the second column of a table of the unreleased changes."""
    unreleased = (ROOT / "CHANGELOG.md").read_text().partition("## Unreleased")[2]
    table = unreleased.partition(f"#### {section}")[2].partition("\n#")[0]
    names = set(re.findall(r"^\| `[^|]*\| `([^`]+)`", table, re.MULTILINE))
    assert names, f"no table {section}"
    return names


def fields(schema: Any, path: str = "") -> Iterator[str]:
    """All paths of fields in a schema."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from fields(child, f"{path}{name}.")
    if "items" in schema:
        yield from fields(schema["items"], f"{path.removesuffix('.')}[].")


def test_pre_commit_runs_programs_of_the_virtual_environment() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    programs = [hook["entry"].split()[0] for hook in repository["hooks"]]

    assert repository["repo"] == "local"
    for program in programs:
        folder, _, name = program.rpartition("/")
        assert folder == ".venv/bin"
        assert (Path(sys.executable).parent / name).exists()
