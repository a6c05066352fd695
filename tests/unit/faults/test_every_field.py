"""Each field of the spec has an example, has an effect, and restarts only what it has to."""

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
from slotkeeper.reconcile.decide.replicas import desired_replicas, policy_of
from slotkeeper.scaling.decide import ScalingInput, decide
from slotkeeper.scaling.history import Change
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample

NOT_ABOUT_REPLICAS = ("replicas", "suspend", "autoscaling", "balancer", "update")
RESTARTS_NEVERTHELESS = {"update", "update.drainTimeoutSeconds"}
"""It is the grace period of the pods."""

LEAVES = [
    field
    for field in fields()
    if not field.schema.keys() & {"properties", "items", "additionalProperties"}
    or "x-kubernetes-preserve-unknown-fields" in field.schema
]
"""The other fields consist of these."""


def for_each(selected: list[Field]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("field", selected, ids=lambda field: field.name)


def servers(field: Field, candidates: list[Any]) -> Iterator[dict[str, LlamaServer]]:
    """For each base, the valid servers with one of these values, by the value."""
    for name in BASES:
        spec = with_needs(base(name), field)
        parsed = {text(value): valid(placed(spec, field.path, value)) for value in candidates}
        yield {value: server for value, server in parsed.items() if server}


def text(value: Any) -> str:
    return "ABSENT" if value is ABSENT else json.dumps(value)


def read(server: LlamaServer, field: Field) -> Any:
    """The value of a field in a server's spec, as JSON."""
    value: Any = server.spec.model_dump(by_alias=True)
    for step in field.path:
        match step:
            case "[]":
                value = value[0]
            case "{}":
                value = next(iter(value.values()))
            case _:
                value = value[step]
    return value


def contains(parsed: Any, value: Any) -> bool:
    """Whether a value was parsed completely. A compute capability may have been a number."""
    if isinstance(value, dict):
        return all(name in parsed and contains(parsed[name], part) for name, part in value.items())
    if isinstance(value, list):
        return len(parsed) == len(value) and all(map(contains, parsed, value))
    return bool(parsed == value) or parsed == str(value)


def test_each_named_field_has_an_example() -> None:
    without_example = [
        field.name
        for field in fields()
        if field.path[-1] not in {"[]", "{}"} and field.own_example is ABSENT
    ]

    assert without_example == [], "add `Example: …` to the field's docstring"


@for_each([field for field in fields() if field.example is not ABSENT])
def test_an_example_is_valid_and_parsed_completely(field: Field) -> None:
    accepted = [
        server for by_value in servers(field, [field.example]) for server in by_value.values()
    ]

    assert accepted, f"{field.example!r} is rejected"
    assert all(contains(read(server, field), field.example) for server in accepted)


@for_each([field for field in fields() if bounds(field)])
def test_enum_members_and_bounds_are_valid(field: Field) -> None:
    accepted = set[str]().union(*servers(field, bounds(field)))

    assert {text(value) for value in bounds(field)} - accepted == set()


def replicas_of(server: LlamaServer) -> int:
    return desired_replicas(server, policy_of(server, MONDAY), None, ScalingInput(), 0.0).replicas


MONDAY = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)


def demand() -> Iterator[tuple[int, float, float | None]]:
    """Concurrent requests, their mean, and the service time, at intervals of five seconds."""
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
    """The scaler's decisions for an hour of demand; none without autoscaling."""
    first = policy_of(server, MONDAY)
    if first is None:
        return []
    scaling, current = ScalingInput(), first.spec.min_replicas
    results = list[tuple[int, str]]()
    for poll, (busy, mean, seconds) in enumerate(demand()):
        now = poll * PEAK_WINDOW_SECONDS
        policy = policy_of(server, MONDAY + timedelta(seconds=now))
        assert policy
        sample = Sample(now, busy, 0, 0, busy, 4 * current, mean, seconds)
        required = policy.required_replicas(sample)
        history = scaling.history.record(now, required, keep=policy.history_seconds)
        scaling = ScalingInput(sample, history, scaling.changes)
        decision = decide(policy, scaling, current=current, now=now)
        change = Change(now, decision.replicas - current)
        scaling = ScalingInput(sample, history, (*scaling.changes, change))
        current = decision.replicas
        results.append((current, decision.reason))
    return results


def effect(server: LlamaServer) -> str:
    """Everything that a spec determines: the children, and the scaler's decisions."""
    return json.dumps([manifests(server, replicas_of(server), IMAGES), decisions(server)])


@for_each(LEAVES)
def test_a_field_has_an_effect(field: Field) -> None:
    assert any(
        len(set(map(effect, by_value.values()))) > 1 for by_value in servers(field, values(field))
    )


@for_each([field for field in fields() if "enum" in field.schema])
def test_no_two_members_of_an_enum_have_the_same_effect(field: Field) -> None:
    members = field.schema["enum"]
    distinct = [
        set(by_value)
        for by_value in servers(field, members)
        if len(set(map(effect, by_value.values()))) == len(by_value) > 1
    ]

    assert set[str]().union(*distinct) == set(map(text, members))


def pods(server: LlamaServer) -> str:
    """The pod templates of replicas and workers: a difference restarts them."""
    templates = [
        manifest["spec"]["template"]
        for manifest in manifests(server, replicas_of(server), IMAGES)
        if manifest["kind"] in {"Deployment", "StatefulSet"}
        and manifest["metadata"]["labels"][names.COMPONENT_LABEL] in {"replica", "worker"}
    ]
    assert templates
    return json.dumps(templates)


@for_each(
    [
        field
        for field in fields()
        if field.path[0] in NOT_ABOUT_REPLICAS and field.name not in RESTARTS_NEVERTHELESS
    ]
)
def test_a_field_that_is_not_about_llama_server_restarts_none(field: Field) -> None:
    distinct = [set(map(pods, by_value.values())) for by_value in servers(field, values(field))]

    assert max(map(len, distinct)) == 1
