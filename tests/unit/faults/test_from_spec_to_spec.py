"""Wherever a server comes from, it is in the end as if it had been made as it is."""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, stored
from scenarios import outcome, settled
from schema_values import BASES, Field, base, fields, placed, valid, values, with_needs
from slotkeeper.kube.kinds import LLAMA_SERVERS

Spec = dict[str, Any]


def specs() -> Iterator[Spec]:
    """For each field that there is a spec without it, and the same with it; one base by turns."""
    bases = cycle(BASES)
    for field in fields():
        tried = islice(with_value(field, bases), len(BASES))
        for without, value in islice(filter(None, tried), 1):
            yield from (without, value)


def with_value(field: Field, bases: Iterator[str]) -> Iterator[tuple[Spec, Spec] | None]:
    """Each base, and it with another value in the field; None for one that must not have it."""
    for name in bases:
        spec = with_needs(base(name), field)
        without = spec if valid(spec) else base(name)
        tried = (placed(spec, field.path, value) for value in values(field))
        found = next((each for each in tried if each != without and valid(each)), None)
        yield (without, found) if found else None


async def test_each_spec_is_reached_from_the_one_before() -> None:
    cluster = FakeCluster()
    stored(cluster)
    operator = Operator(cluster)

    ways = list(specs())
    assert len(ways) > 100
    for spec in ways:
        say(cluster, spec)
        await settled(operator, cluster)

        assert children(cluster, spec) == children(await made(spec), spec), spec


async def made(spec: Spec) -> FakeCluster:
    """A cluster in which the server was made with this spec."""
    cluster = FakeCluster()
    stored(cluster)
    say(cluster, spec)
    await settled(Operator(cluster), cluster)
    return cluster


def say(cluster: FakeCluster, spec: Spec) -> None:
    cluster.edit(LLAMA_SERVERS, KEY.namespace, KEY.name, lambda raw: raw.update(spec=spec))


def children(cluster: FakeCluster, spec: Spec) -> dict[Any, Any]:
    found = {place: item for place, item in outcome(cluster).items() if place[0] != LLAMA_SERVERS}
    if "autoscaling" not in spec:
        return found
    # How many replicas there are is what demand has made of how many there were.
    return {place: _without(item, "replicas") for place, item in found.items()}


def _without(item: Any, field: str) -> Any:
    return {**item, "spec": {**item.get("spec", {}), field: ...}}
