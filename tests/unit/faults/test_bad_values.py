"""What the schema forbids is refused by name, hurts no other server, and leaves nothing behind."""

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

REFUSED = [field for field in fields() if bad_values(field)]


def spec_with(field: Field, value: Any) -> dict[str, Any]:
    """A spec that is good but for this value."""
    specs = (with_needs(base(name), field) for name in BASES)
    good = next(spec for spec in specs if valid(spec))
    return placed(good, field.path, value)


def where(field: Field) -> str:
    """The field as a message names it, such as `spec.model.adapters.0.url`."""
    steps = ["spec", *field.path]
    return r"\.".join({"[]": "0", "{}": "[^;]+"}.get(step, re.escape(step)) for step in steps)


def test_nearly_every_field_forbids_something() -> None:
    lax = [field.name for field in fields() if not bad_values(field)]

    assert lax == []


@pytest.mark.parametrize("field", REFUSED, ids=lambda field: field.name)
def test_a_bad_value_is_refused_with_the_fields_path(field: Field) -> None:
    for value in bad_values(field):
        with pytest.raises(InvalidSpec, match=where(field)):
            parsed({**raw_server(), "spec": spec_with(field, value)})


def children(cluster: FakeCluster) -> dict[Any, Any]:
    """All that the server owns, to the last byte."""
    return {
        place: item
        for place, item in cluster.objects.items()
        if place[0] in CHILDREN and item["metadata"]["labels"][names.SERVER_LABEL] == "chat"
    }


async def settle(cluster: FakeCluster) -> FakeCluster:
    """Two servers that run."""
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


@pytest.mark.parametrize("field", REFUSED, ids=lambda field: field.name)
async def test_from_good_to_bad_to_good_nothing_is_lost_and_no_other_server_notices(
    field: Field,
) -> None:
    cluster = SETTLED.copy()
    operator = Operator(cluster)
    bad = spec_with(field, bad_values(field)[0])

    change_spec(cluster, lambda spec: spec.update(bad))
    change_spec(cluster, lambda spec: spec.update(replicas=3), OTHER)
    await operator.reconcile()
    await operator.reconcile(OTHER)

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert re.search(where(field), ready["message"])
    assert cluster.named(DEPLOYMENTS)["other-replicas"]["spec"]["replicas"] == 3

    good = SETTLED.named(LLAMA_SERVERS)["chat"]["spec"]
    cluster.edit(LLAMA_SERVERS, "default", "chat", lambda raw: raw.update(spec=good))
    await operator.reconcile()

    assert children(cluster) == children(SETTLED)
    assert _undated(server_status(cluster)) == _undated(server_status(SETTLED))


def _undated(status: dict[str, Any]) -> dict[str, Any]:
    found = [
        {name: each[name] for name in ("type", "status", "reason", "message")}
        for each in status["conditions"]
    ]
    return {**status, "conditions": found, "observedGeneration": 0}
