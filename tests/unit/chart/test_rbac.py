import pytest

from chart import CHART, Json, rules
from llamagateways import gateway
from llamaservers import server
from slotkeeper.desired import balancer
from slotkeeper.desired import gateway as desired_gateway
from slotkeeper.kube import kinds
from slotkeeper.kube.cluster import Kind

READ = {"get", "list", "watch"}
MANAGE = READ | {"create", "patch", "delete"}

FORBIDDEN = {"*", "secrets", "configmaps", "pods/exec", "escalate", "bind", "impersonate"}
"""Words that no rule may contain. The operator needs no access to credentials or prompts."""


@pytest.mark.parametrize(
    "name", ["watched", "pod-logs", "own", "nodes", "node-cache", "node-prompts"]
)
def test_no_rule_contains_a_wildcard_or_secrets(name: str) -> None:
    used = {word for rule in rules(name) for words in rule.values() for word in words}

    assert used & FORBIDDEN == set()


def test_there_are_no_other_rules() -> None:
    assert {file.name for file in CHART.glob("files/rbac/*")} == {
        "node-cache.yaml",
        "node-prompts.yaml",
        "nodes.yaml",
        "own.yaml",
        "pod-logs.yaml",
        "watched.yaml",
    }


@pytest.mark.parametrize("kind", kinds.CHILDREN, ids=lambda kind: kind.plural)
def test_the_operator_may_manage_its_children(kind: Kind) -> None:
    assert _granted(rules("watched"), kind.group, kind.plural) == MANAGE


@pytest.mark.parametrize(
    ("group", "resource", "verbs"),
    [
        ("slotkeeper.dev", "llamaservers", READ),
        ("slotkeeper.dev", "llamaservers/status", {"patch"}),
        ("slotkeeper.dev", "llamagateways", READ),
        ("slotkeeper.dev", "llamagateways/status", {"patch"}),
        ("", "pods", {"list", "watch", "patch"}),
        ("", "events", {"create"}),
    ],
)
def test_the_operator_has_minimal_permissions_for_other_objects(
    group: str, resource: str, verbs: set[str]
) -> None:
    assert _granted(rules("watched"), group, resource) == verbs


def test_the_operator_may_only_list_nodes() -> None:
    assert _granted(rules("nodes"), "", "nodes") == {"list"}
    assert _granted(rules("watched"), "", "nodes") == set()


def test_the_operator_may_only_get_logs() -> None:
    assert rules("pod-logs") == [
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    assert _granted(rules("watched"), "", "pods/log") == set()


def test_the_agent_of_a_nodes_cache_may_only_list_and_watch_pods() -> None:
    assert rules("node-cache") == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]


def test_the_operator_may_lead_and_watch_its_own_lease() -> None:
    verbs = _granted(rules("own"), "coordination.k8s.io", "leases")

    assert verbs == READ | {"create", "patch"}


@pytest.mark.parametrize(
    "role", [balancer.role(server()), desired_gateway.role(gateway())], ids=["balancer", "gateway"]
)
def test_the_operator_has_all_permissions_that_it_grants(role: Json) -> None:
    # Otherwise the API server rejects the Role.
    for granted in role["rules"]:
        for group in granted["apiGroups"]:
            for resource in granted["resources"]:
                assert set(granted["verbs"]) <= _granted(rules("watched"), group, resource)


def _granted(rbac_rules: list[Json], group: str, resource: str) -> set[str]:
    return {
        verb
        for rule in rbac_rules
        if group in rule["apiGroups"] and resource in rule["resources"]
        for verb in rule["verbs"]
    }
