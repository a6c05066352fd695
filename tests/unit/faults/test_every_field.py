"""Each field of the spec is documented by an example, has an effect, and restarts what it must."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

import pytest

from llamaservers import IMAGES
from schema_values import (
    ABSENT,
    BASES,
    Field,
    base,
    bounds,
    fields,
    placed,
    valid,
    values,
    with_needs,
)
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.manifests import manifests
from slotkeeper.reconcile.clock import Moment
from slotkeeper.reconcile.decide.replicas import desired_replicas, policy_of
from slotkeeper.scaling.decide import ScalingInput, decide
from slotkeeper.scaling.history import Change
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample

RESTARTS_NOTHING = ("replicas", "suspend", "autoscaling", "balancer", "update")
RESTARTS_ALL_THE_SAME = {"update", "update.drainTimeoutSeconds"}
"""It is the grace period of the pods themselves."""

LEAVES = [
    field
    for field in fields()
    if not field.schema.keys() & {"properties", "items", "additionalProperties"}
    or "x-kubernetes-preserve-unknown-fields" in field.schema
]
"""The others are what these are."""


def named(found: list[Field]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("field", found, ids=lambda field: field.name)


def servers(field: Field, tried: list[Any]) -> Iterator[dict[str, LlamaServer]]:
    """For each base, the valid servers with one of these values, by the value."""
    for name in BASES:
        spec = with_needs(base(name), field)
        found = {text(value): valid(placed(spec, field.path, value)) for value in tried}
        yield {value: server for value, server in found.items() if server}


def text(value: Any) -> str:
    return "ABSENT" if value is ABSENT else json.dumps(value)


def read(server: LlamaServer, field: Field) -> Any:
    """What a server's spec says of a field, as JSON."""
    found: Any = server.spec.model_dump(by_alias=True)
    for step in field.path:
        match step:
            case "[]":
                found = found[0]
            case "{}":
                found = next(iter(found.values()))
            case _:
                found = found[step]
    return found


def says(found: Any, value: Any) -> bool:
    """Whether all of a value was understood. A compute capability may have been a number."""
    if isinstance(value, dict):
        return all(name in found and says(found[name], part) for name, part in value.items())
    if isinstance(value, list):
        return len(found) == len(value) and all(map(says, found, value))
    return bool(found == value) or found == str(value)


def test_each_field_that_has_a_name_gives_an_example() -> None:
    silent = [
        field.name
        for field in fields()
        if field.path[-1] not in {"[]", "{}"} and field.own_example is ABSENT
    ]

    assert silent == ["model"], "say `Example: …` in the field's docstring"


@named([field for field in fields() if field.example is not ABSENT])
def test_an_example_is_valid_and_means_what_it_says(field: Field) -> None:
    taken = [server for by_value in servers(field, [field.example]) for server in by_value.values()]

    assert taken, f"{field.example!r} is refused"
    assert all(says(read(server, field), field.example) for server in taken)


@named([field for field in fields() if bounds(field)])
def test_what_a_schema_names_is_valid(field: Field) -> None:
    taken = set[str]().union(*servers(field, bounds(field)))

    assert {text(value) for value in bounds(field)} - taken == set()


def replicas_of(server: LlamaServer) -> int:
    return desired_replicas(server, None, ScalingInput(), Moment(0, MONDAY, MONDAY)).replicas


MONDAY = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)


def demand() -> Iterator[tuple[int, float, float | None]]:
    """Requests at once, now and on average, and how long each lasts: every five seconds."""
    return chain(
        repeat((3, 3.0, None), 30),  # more than 70 % of four slots
        repeat((4, 4.0, None), 30),
        repeat((3, 3.0, 10.0), 80),
        repeat((40, 10.0, 10.0), 40),
        repeat((100, 10.0, 10.0), 3),
        repeat((5, 1.0, 10.0), 80),
        repeat((0, 0.0, 10.0), 400),
        repeat((9, 0.1, None), 10),
    )


def decisions(server: LlamaServer) -> list[tuple[int, str]]:
    """What the scaler makes of an hour; nothing where it is not asked."""
    first = policy_of(server, MONDAY)
    if first is None:
        return []
    known, current = ScalingInput(), first.spec.min_replicas
    made = list[tuple[int, str]]()
    for look, (busy, mean, seconds) in enumerate(demand()):
        now = look * PEAK_WINDOW_SECONDS
        policy = policy_of(server, MONDAY + timedelta(seconds=now))
        assert policy
        sample = Sample(now, busy, 0, 0, busy, 4 * current, mean, seconds)
        asked = policy.required_replicas(sample)
        history = known.history.record(now, asked, keep=policy.history_seconds)
        known = ScalingInput(sample, history, known.changes)
        decision = decide(policy, known, current=current, now=now)
        change = Change(now, decision.replicas - current)
        known = ScalingInput(sample, history, (*known.changes, change))
        current = decision.replicas
        made.append((current, decision.reason))
    return made


def effect(server: LlamaServer) -> str:
    """All that a spec decides: the children, and how many replicas demand gets."""
    return json.dumps([manifests(server, replicas_of(server), IMAGES), decisions(server)])


@named(LEAVES)
def test_a_field_has_an_effect(field: Field) -> None:
    assert any(
        len(set(map(effect, by_value.values()))) > 1 for by_value in servers(field, values(field))
    )


@named([field for field in fields() if "enum" in field.schema])
def test_no_two_members_of_an_enum_mean_the_same(field: Field) -> None:
    members = field.schema["enum"]

    assert any(
        len(set(map(effect, by_value.values()))) == len(members)
        for by_value in servers(field, members)
    )


def pods(server: LlamaServer) -> str:
    """What replicas and their workers are made of: a difference restarts them."""
    made = [
        manifest["spec"]["template"]
        for manifest in manifests(server, replicas_of(server), IMAGES)
        if manifest["kind"] in {"Deployment", "StatefulSet"}
        and manifest["metadata"]["labels"][names.COMPONENT_LABEL] in {"replica", "worker"}
    ]
    assert made
    return json.dumps(made)


@named(
    [
        field
        for field in fields()
        if field.path[0] in RESTARTS_NOTHING and field.name not in RESTARTS_ALL_THE_SAME
    ]
)
def test_a_field_that_is_not_about_llama_server_restarts_none(field: Field) -> None:
    made = [set(map(pods, by_value.values())) for by_value in servers(field, values(field))]

    assert max(map(len, made)) == 1
