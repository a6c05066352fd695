"""The pure parts of the operator's benchmark."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.reconcile import audit_log
from bench.reconcile.measure_baseline import children
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
    counts = audit_log.writes(audit_log.requests(log, NOON))

    assert counts == Counter({"patch services": 1, "patch leases": 1, "delete roles": 1})


def test_earlier_requests_are_ignored_and_those_of_kopf_are_the_operators(log: Path) -> None:
    requests = list(audit_log.requests(log, NOON))

    assert len(requests) == 7
    assert [request.verb for request in requests if request.agent.startswith("kopf")] == ["watch"]
    assert requests[-1].is_operators


def test_the_servers_are_valid_distributed_and_the_same_in_each_run() -> None:
    raw_servers = servers(2 * NAMESPACES)

    assert raw_servers == servers(2 * NAMESPACES)
    assert len({raw["metadata"]["namespace"] for raw in raw_servers}) == NAMESPACES
    for raw in raw_servers[: len(MIX)]:
        stored = {**raw, "metadata": {**raw["metadata"], "uid": "1"}}
        assert LlamaServer.parse(stored).spec.slots == 4
        assert len(children(stored)) == 11
