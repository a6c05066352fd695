"""The pure parts of the operator's bench."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.reconcile import audit
from bench.reconcile.floor import children
from bench.reconcile.servers import MIX, NAMESPACES, servers
from slotkeeper.api.server import LlamaServer

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def line(agent: str, verb: str, resource: str, name: str = "a", *, after: float = 0) -> str:
    return json.dumps(
        {
            "requestReceivedTimestamp": (NOON + timedelta(seconds=after)).isoformat(),
            "userAgent": agent,
            "verb": verb,
            "objectRef": {"resource": resource, "name": name},
        }
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    written = (
        line("slotkeeper", "patch", "services", after=-1),
        line("slotkeeper", "patch", "services"),
        line("slotkeeper", "get", "services"),
        line("slotkeeper", "patch", "leases", "slotkeeper-operator"),
        line("slotkeeper", "patch", "leases", "chat-balancer"),
        line("kube-scheduler/v1", "create", "events"),
        line("kopf/1.45", "watch", "llamaservers"),
    )
    (tmp_path / "audit-2026.log").write_text(line("slotkeeper", "delete", "roles") + "\n")
    (tmp_path / "audit.log").write_text("\n".join(written) + '\n{"half')
    return tmp_path / "audit.log"


def test_the_operators_writes_are_counted_without_its_own_lease(log: Path) -> None:
    counted = audit.writes(audit.requests(log, NOON))

    assert counted == Counter({"patch services": 1, "patch leases": 1, "delete roles": 1})


def test_what_was_asked_before_is_left_out_and_kopf_is_the_operator(log: Path) -> None:
    asked = list(audit.requests(log, NOON))

    assert len(asked) == 7
    assert [request.verb for request in asked if request.agent.startswith("kopf")] == ["watch"]
    assert asked[-1].is_operators


def test_the_servers_are_valid_spread_and_each_run_has_the_same() -> None:
    made = servers(2 * NAMESPACES)

    assert made == servers(2 * NAMESPACES)
    assert len({raw["metadata"]["namespace"] for raw in made}) == NAMESPACES
    for raw in made[: len(MIX)]:
        stored = {**raw, "metadata": {**raw["metadata"], "uid": "1"}}
        assert LlamaServer.parse(stored).spec.slots == 4
        assert len(children(stored)) == 11
