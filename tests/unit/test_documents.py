"""What the documents say can be done, can be done."""

import re
from pathlib import Path

import pytest
import yaml

from provider import cli
from slotkeeper.api import reasons
from slotkeeper.api.extra_args import MANAGED
from slotkeeper.api.server import LlamaServer
from slotkeeper.balancer.options import parse
from slotkeeper.reconcile.decide.replicas import MANUAL, SUSPENDED
from slotkeeper.scaling.decide import ScalingReason

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


def test_the_refused_flags_are_those_that_the_rules_refuse() -> None:
    servers = (ROOT / "docs/servers.md").read_text()
    rows = [
        f"| {', '.join(f'`{flag}`' for flag in managed.flags)} | {managed.instead} |"
        for managed in MANAGED
    ]

    assert "\n".join(["| flag | what to do |", "|---|---|", *rows, ""]) in servers


def test_the_reasons_of_conditions_are_those_of_the_table() -> None:
    servers = (ROOT / "docs/servers.md").read_text()

    assert "\n".join(["|---|---|---|", *reasons.markdown(), ""]) in servers


def test_the_reasons_of_decisions_are_those_that_there_are() -> None:
    servers = (ROOT / "docs/servers.md").read_text()
    [table] = re.findall(
        r"### Why\n.*?\| reason \| \|\n\|---\|---\|\n(.*?)\n\n", servers, re.DOTALL
    )

    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    assert told == [*ScalingReason, MANUAL, SUSPENDED]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_make_target_exists(document: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)(?=[`\s])", document.read_text()))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_cluster_command_is_one(document: Path) -> None:
    for line in re.findall(r"^\$ \./e2e/cluster ([^#…\n]+)", document.read_text(), re.MULTILINE):
        cli.command_line().parse_args(line.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    local = [link for link in links if "://" not in link]

    assert [link for link in local if not (document.parent / link).exists()] == []
