"""An edited server ends with the same children as one that was created with the last spec."""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, apply_server
from scenarios import final_state, reconcile_until_stable
from schema_values import BASES, Field, base, fields, placed, valid, values, with_needs
from slotkeeper.kube.kinds import JOBS, LLAMA_SERVERS

Spec = dict[str, Any]


def specs() -> Iterator[Spec]:
    """For each field a spec without it, and the same with it; the bases take turns."""
    bases = cycle(BASES)
    for field in fields():
        candidates = islice(with_value(field, bases), len(BASES))
        for without, value in islice(filter(None, candidates), 1):
            yield from (without, value)


def with_value(field: Field, bases: Iterator[str]) -> Iterator[tuple[Spec, Spec] | None]:
    """Each base without and with a value in the field; None where the base excludes the field."""
    for name in bases:
        spec = with_needs(base(name), field)
        without = spec if valid(spec) else base(name)
        candidates = (placed(spec, field.path, value) for value in values(field))
        found = next((each for each in candidates if each != without and valid(each)), None)
        yield (without, found) if found else None


async def test_each_spec_is_reached_from_the_one_before() -> None:
    cluster = FakeCluster()
    apply_server(cluster)
    operator = Operator(cluster)

    sequence = list(specs())
    assert len(sequence) > 100
    for spec in sequence:
        set_spec(cluster, spec)
        await reconcile_until_stable(operator, cluster)

        assert children(cluster, spec) == children(await created_with(spec), spec), spec


async def created_with(spec: Spec) -> FakeCluster:
    """A cluster in which the server was created with this spec."""
    cluster = FakeCluster()
    apply_server(cluster)
    set_spec(cluster, spec)
    await reconcile_until_stable(Operator(cluster), cluster)
    return cluster


def set_spec(cluster: FakeCluster, spec: Spec) -> None:
    cluster.edit(LLAMA_SERVERS, KEY.namespace, KEY.name, lambda raw: raw.update(spec=spec))


def children(cluster: FakeCluster, spec: Spec) -> dict[Any, Any]:
    state = final_state(cluster)
    found = {
        place: item
        for place, item in state.items()
        if place[0] != LLAMA_SERVERS and not removes_folder(item)
    }
    if "autoscaling" not in spec:
        return found
    # The number of replicas depends on the earlier number, too.
    return {place: _without(item, "replicas") for place, item in found.items()}


def removes_folder(item: Any) -> bool:
    """Whether this is a Job that removes the prompts of an earlier spec, and then itself."""
    return item["kind"] == JOBS.kind and item["spec"].get("suspend") is False


def _without(item: Any, field: str) -> Any:
    return {**item, "spec": {**item.get("spec", {}), field: ...}}
