"""Random faults and changes of a gateway and its two servers, at any time: nothing is left of them.

Afterwards the gateway is as one that was created with its last spec, and the operator writes
nothing more.
"""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from typing_extensions import override

from disturbance import Disturbance
from fake_cluster import Place
from gateway_harness import GATEWAY, apply_gateway, update_gateway
from operator_harness import apply_server, update_spec
from slotkeeper.kube.cluster import ApiError, Kind
from slotkeeper.kube.kinds import (
    DEPLOYMENTS,
    EVENTS,
    GATEWAY_CHILDREN,
    LLAMA_GATEWAYS,
    LLAMA_SERVERS,
    SERVICES,
)
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.workqueue import RetryError

SEEDS = [*range(10), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(10, 300))]
STEPS = 15
MAX_SECONDS = 12
"""Of a step."""

SERVERS = ("a", "b")
KINDS: list[Kind | None] = [
    None,
    DEPLOYMENTS,
    SERVICES,
    LLAMA_GATEWAYS,
    LLAMA_SERVERS,
    EVENTS,
]

SPECS: list[dict[str, Any]] = [
    *({"replicas": replicas} for replicas in (1, 3)),
    *({"aliases": aliases} for aliases in ({}, {"gpt": "a"}, {"gpt": "missing"})),
    *({"apiKeys": keys} for keys in (None, {"secretRef": {"name": "keys"}})),
    *({"tls": tls} for tls in (None, {"secretName": "cert"})),
    *({"budget": budget} for budget in (None, {"gpus": 1}, {"maxLoadedModels": 2})),
    *({"serverSelector": {"matchLabels": labels}} for labels in ({}, {"team": "search"})),
    {"maxBodyBytes": 7},  # invalid
    {"maxBodyBytes": "16Mi"},
]


class World(Disturbance):
    """A cluster with a gateway, two servers and the operator, and what may happen to them."""

    key = GATEWAY
    kinds = KINDS

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        apply_gateway(self.cluster)
        for name in SERVERS:
            apply_server(self.cluster, name, gpu={"count": 1})

    @property
    def steps(self) -> list[Callable[[], object]]:
        return [
            *(self.change_gateway, self.change_gateway, self.recreate_gateway, self.change_server),
            *self.common_steps,
        ]

    @property
    def has_gateway(self) -> bool:
        return GATEWAY.name in self.cluster.by_name(LLAMA_GATEWAYS)

    def change_gateway(self) -> None:
        if self.has_gateway:
            update_gateway(self.cluster, **self.rng.choice(SPECS))

    def recreate_gateway(self) -> None:
        if self.has_gateway:
            self.cluster.remove(LLAMA_GATEWAYS, *GATEWAY)
        if self.rng.random() < 0.7:
            apply_gateway(self.cluster)

    def change_server(self) -> None:
        name = self.rng.choice(SERVERS)
        if name not in self.cluster.by_name(LLAMA_SERVERS):
            apply_server(self.cluster, name, gpu={"count": 1})
        elif self.rng.random() < 0.3:
            self.cluster.remove(LLAMA_SERVERS, GATEWAY.namespace, name)
        else:
            key = Key(GATEWAY.namespace, name)
            update_spec(self.cluster, key, replicas=self.rng.choice([0, 1, 2]))

    @override
    def collect_garbage(self) -> None:
        """Delete children whose owner is deleted, and the Service that took the gateway's name."""
        owners = {
            item["metadata"]["uid"]
            for kind in (LLAMA_GATEWAYS, LLAMA_SERVERS)
            for item in self.cluster.by_name(kind).values()
        }
        for place, item in list(self.cluster.objects.items()):
            references = item["metadata"].get("ownerReferences")
            is_child = place[0] in GATEWAY_CHILDREN
            if is_child and not {each["uid"] for each in references or ()} & owners:
                self.cluster.remove(*place)

    @override
    def children(self) -> list[Place]:
        return [place for place, item in self.cluster.objects.items() if _is_of_gateway(item)]

    @override
    async def run_for(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.operator.run_for(1)
            with suppress(ApiError, RetryError):
                await self.operator.reconcile_gateways()

    def manifests(self) -> dict[Place, Any]:
        """The gateway's children as the operator specifies them."""
        found = {}
        for place, item in self.cluster.objects.items():
            if place[0] in GATEWAY_CHILDREN and _is_of_gateway(item):
                spec = {name: item[name] for name in item.keys() - {"metadata", "status"}}
                labels = item["metadata"]["labels"]
                template = spec.get("spec", {}).get("template", {}).get("metadata")
                if template:
                    # It contains the uid of the ServiceAccount.
                    metadata = {**template, "annotations": sorted(template["annotations"])}
                    template = {**spec["spec"]["template"], "metadata": metadata}
                    spec["spec"] = {**spec["spec"], "template": template}
                found[place] = labels, spec
        return found


def _is_of_gateway(item: Any) -> bool:
    references = item["metadata"].get("ownerReferences") or ()
    return any(each.get("kind") == LLAMA_GATEWAYS.kind for each in references)


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_left_of_random_faults_of_a_gateway(seed: int) -> None:
    rng = Random(seed)
    world = World(rng)

    for _ in range(STEPS):
        rng.choice(world.steps)()
        seconds, before = rng.randint(1, MAX_SECONDS), len(world.operator.passes)
        await world.run_for(seconds)
        assert len(world.operator.passes) - before <= 60 + 30 * seconds
    await world.finish()
    world.cluster.writes.clear()
    await world.run_for(100)

    assert world.cluster.writes == []
    assert not world.operator.runtime.gateways.queue.is_failing(GATEWAY)
    if not world.has_gateway:
        assert world.manifests() == {}
        return
    gateway = world.cluster.by_name(LLAMA_GATEWAYS)[GATEWAY.name]
    anew = World(rng)
    anew.cluster.edit(LLAMA_GATEWAYS, *GATEWAY, lambda raw: raw.update(spec=gateway["spec"]))
    await anew.finish()
    if gateway["spec"].get("maxBodyBytes") == 7:
        # The children of the last valid spec stay.
        conditions = {each["type"]: each["reason"] for each in gateway["status"]["conditions"]}
        assert conditions["Degraded"] == "InvalidSpec"
    else:
        assert world.manifests() == anew.manifests()
