"""Commands, links, examples and tables in the documents are valid."""

import re
from pathlib import Path

import pytest
import yaml

from provider import cli
from slotkeeper.api import reference
from slotkeeper.api.server import LlamaServer
from slotkeeper.balancer.options import parse
from slotkeeper.reconcile.decide.replicas import MANUAL, SUSPENDED
from slotkeeper.scaling.decide import ScalingReason

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = DOCUMENTS[0].read_text()


def test_the_readmes_server_is_valid() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    raw = yaml.safe_load(block)
    raw["metadata"] |= {"namespace": "default", "uid": "1"}

    server = LlamaServer.parse(raw)

    assert server.spec.slots == 8


def test_the_readmes_balancer_starts_from_its_command_line() -> None:
    [command] = re.findall(r"\$ slotkeeper balancer ((?:.*\\\n)*.*)", README)

    options = parse(command.replace("\\\n", " ").split())

    assert len(options.replicas) == 2


def test_the_reasons_of_scaling_decisions_are_complete() -> None:
    servers = (ROOT / "docs/servers.md").read_text()
    [table] = re.findall(
        r"### Why\n.*?\| reason \| \|\n\|---\|---\|\n(.*?)\n\n", servers, re.DOTALL
    )

    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    assert documented == [*ScalingReason, MANUAL, SUSPENDED]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_make_target_exists(document: Path) -> None:
    mentioned = set(re.findall(r"\bmake ([a-z-]+)(?=[`\s])", document.read_text()))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert mentioned <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_cluster_command_is_valid(document: Path) -> None:
    for line in re.findall(r"^\$ \./e2e/cluster ([^#…\n]+)", document.read_text(), re.MULTILINE):
        cli.command_line().parse_args(line.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_has_a_target(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", document.read_text())
    local = [(document.parent / path, anchor) for path, anchor in links if "://" not in path]

    assert [path for path, _ in local if not path.exists()] == []
    files = [(path if path.is_file() else document, anchor) for path, anchor in local if anchor]
    assert [link for link in files if link[1] not in anchors(link[0])] == []


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to headings, and those in the text."""
    text = document.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {*map(reference.anchor, headings), *re.findall(r'<a id="([^"]+)">', text)}
