"""Values that the schema forbids are rejected with their path and affect nothing else."""

import asyncio
import re
from typing import Any

import pytest

from fake_cluster import FakeCluster
from llamaservers import parsed, raw_server
from operator_harness import (
    KEY,
    Operator,
    apply_server,
    condition,
    replica_count,
    roll_out,
    server_status,
    update_spec,
)
from schema_values import BASES, Field, bad_values, base, fields, placed, valid, with_needs
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.desired import names
from slotkeeper.kube.kinds import CHILDREN, LLAMA_SERVERS
from slotkeeper.kube.objects import Key

OTHER = Key("default", "other")

RESTRICTED = [field for field in fields() if bad_values(field)]


def spec_with(field: Field, value: Any) -> dict[str, Any]:
    """A spec that is valid except for this value."""
    specs = (with_needs(base(name), field) for name in BASES)
    valid_spec = next(spec for spec in specs if valid(spec))
    return placed(valid_spec, field.path, value)


def path_pattern(field: Field) -> str:
    """A pattern of the field's path in a message, such as `spec.model.adapters.0.url`."""
    steps = ["spec", *field.path]
    return r"\.".join({"[]": "0", "{}": "[^;]+"}.get(step, re.escape(step)) for step in steps)


def test_every_field_forbids_some_value() -> None:
    unrestricted = [field.name for field in fields() if not bad_values(field)]

    assert unrestricted == []


@pytest.mark.parametrize("field", RESTRICTED, ids=lambda field: field.name)
def test_a_bad_value_is_rejected_with_the_fields_path(field: Field) -> None:
    for value in bad_values(field):
        with pytest.raises(InvalidSpec, match=path_pattern(field)):
            parsed({**raw_server(), "spec": spec_with(field, value)})


def children(cluster: FakeCluster) -> dict[Any, Any]:
    """All objects of the server KEY, complete."""
    return {
        place: item
        for place, item in cluster.objects.items()
        if place[0] in CHILDREN and item["metadata"]["labels"][names.SERVER_LABEL] == KEY.name
    }


async def deploy_two(cluster: FakeCluster) -> FakeCluster:
    """Deploy two servers."""
    operator = Operator(cluster)
    apply_server(cluster)
    apply_server(cluster, OTHER.name)
    for _ in range(2):
        for key in (KEY, OTHER):
            await operator.reconcile(key)
        roll_out(cluster)
    for key in (KEY, OTHER):
        await operator.reconcile(key)
    return cluster


DEPLOYED = asyncio.run(deploy_two(FakeCluster()))


@pytest.mark.parametrize("field", RESTRICTED, ids=lambda field: field.name)
async def test_a_bad_value_changes_no_child_and_no_other_server_and_can_be_corrected(
    field: Field,
) -> None:
    cluster = DEPLOYED.copy()
    operator = Operator(cluster)
    invalid = spec_with(field, bad_values(field)[0])

    update_spec(cluster, **invalid)
    update_spec(cluster, OTHER, replicas=3)
    await operator.reconcile()
    await operator.reconcile(OTHER)

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert re.search(path_pattern(field), ready["message"])
    assert replica_count(cluster, OTHER.name) == 3

    good = DEPLOYED.by_name(LLAMA_SERVERS)["chat"]["spec"]
    cluster.edit(LLAMA_SERVERS, "default", "chat", lambda raw: raw.update(spec=good))
    await operator.reconcile()

    assert children(cluster) == children(DEPLOYED)
    assert _without_times(server_status(cluster)) == _without_times(server_status(DEPLOYED))


def _without_times(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [
        {name: each[name] for name in ("type", "status", "reason", "message")}
        for each in status["conditions"]
    ]
    return {**status, "conditions": conditions, "observedGeneration": 0}
