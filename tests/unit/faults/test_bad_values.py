"""Invalid values are rejected with their path, affect no other server, and leave no trace."""

import asyncio
import re
from typing import Any

import pytest

from fake_cluster import FakeCluster
from llamaservers import parsed, raw_server
from operator_harness import KEY, Operator, change_spec, condition, roll_out, server_status, stored
from schema_values import BASES, Field, bad_values, base, fields, placed, valid, with_needs
from slotkeeper.api.server import InvalidSpec
from slotkeeper.desired import names
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS
from slotkeeper.kube.objects import Key

OTHER = Key("default", "other")

WITH_BAD_VALUES = [field for field in fields() if bad_values(field)]


def spec_with(field: Field, value: Any) -> dict[str, Any]:
    """A spec that is valid except for this value."""
    specs = (with_needs(base(name), field) for name in BASES)
    valid_spec = next(spec for spec in specs if valid(spec))
    return placed(valid_spec, field.path, value)


def path_pattern(field: Field) -> str:
    """Pattern of the field's path in a message, such as `spec.model.adapters.0.url`."""
    steps = ["spec", *field.path]
    return r"\.".join({"[]": "0", "{}": "[^;]+"}.get(step, re.escape(step)) for step in steps)


def test_every_field_has_an_invalid_value() -> None:
    unchecked = [field.name for field in fields() if not bad_values(field)]

    assert unchecked == []


@pytest.mark.parametrize("field", WITH_BAD_VALUES, ids=lambda field: field.name)
def test_an_invalid_value_is_rejected_with_the_fields_path(field: Field) -> None:
    for value in bad_values(field):
        with pytest.raises(InvalidSpec, match=path_pattern(field)):
            parsed({**raw_server(), "spec": spec_with(field, value)})


def children(cluster: FakeCluster) -> dict[Any, Any]:
    """All objects that the server owns, complete."""
    return {
        place: item
        for place, item in cluster.objects.items()
        if place[0] in CHILDREN and item["metadata"]["labels"][names.SERVER_LABEL] == "chat"
    }


async def settle(cluster: FakeCluster) -> FakeCluster:
    """A cluster with two running servers."""
    operator = Operator(cluster)
    stored(cluster)
    stored(cluster, "other")
    for _ in range(2):
        for key in (KEY, OTHER):
            await operator.reconcile(key)
        roll_out(cluster)
    for key in (KEY, OTHER):
        await operator.reconcile(key)
    return cluster


SETTLED = asyncio.run(settle(FakeCluster()))


@pytest.mark.parametrize("field", WITH_BAD_VALUES, ids=lambda field: field.name)
async def test_from_valid_to_invalid_to_valid_nothing_is_lost_and_no_other_server_is_affected(
    field: Field,
) -> None:
    cluster = SETTLED.copy()
    operator = Operator(cluster)
    invalid = spec_with(field, bad_values(field)[0])

    change_spec(cluster, lambda spec: spec.update(invalid))
    change_spec(cluster, lambda spec: spec.update(replicas=3), OTHER)
    await operator.reconcile()
    await operator.reconcile(OTHER)

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert re.search(path_pattern(field), ready["message"])
    assert cluster.named(DEPLOYMENTS)["other-replicas"]["spec"]["replicas"] == 3

    before = SETTLED.named(LLAMA_SERVERS)["chat"]["spec"]
    cluster.edit(LLAMA_SERVERS, "default", "chat", lambda raw: raw.update(spec=before))
    await operator.reconcile()

    assert children(cluster) == children(SETTLED)
    assert _without_times(server_status(cluster)) == _without_times(server_status(SETTLED))


def _without_times(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [
        {name: each[name] for name in ("type", "status", "reason", "message")}
        for each in status["conditions"]
    ]
    return {**status, "conditions": conditions, "observedGeneration": 0}
