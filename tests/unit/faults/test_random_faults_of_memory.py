"""Random faults, reports and nodes while the memory of a server's GPUs is planned.

Afterwards the server has replicas by the last report of its model, and the operator writes nothing
more. At no time does a server cause passes in a loop, and no replica is replaced but for a change
of its server.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from typing_extensions import override

from disturbance import DisturbedServer
from gpu_nodes import add_gpu_node
from inspection_jobs import RECORD, inspections
from operator_harness import KEY, apply_server, condition, pod_of, server_status, update_spec
from pod_statuses import DOWNLOAD_IMAGE, terminated
from prefetch_jobs import SUCCEEDED, failed
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import Kind
from slotkeeper.kube.kinds import DEPLOYMENTS, JOBS, LLAMA_SERVERS, NODES, PODS

SEEDS = range(40)
STEPS = 20
MAX_SECONDS = 20
"""Of a step."""

SPECS: list[dict[str, Any]] = [
    *({"contextPerSlot": context} for context in ("auto", "auto", 4096)),
    *({"gpu": {"memory": size, "layers": "auto"}} for size in ("15Gi", "6Gi", "1Gi")),
    *({"gpu": gpu} for gpu in ({"memory": "15Gi"}, {}, {"minMemory": "10Gi"})),
    *({"model": {"url": f"https://models.example.com/{name}.gguf"}} for name in "ab"),
    *({"slots": slots} for slots in (1, 8)),
    *({"suspend": suspend} for suspend in (False, False, True)),
    *({"replicas": replicas} for replicas in (0, 2)),
]

KINDS: list[Kind | None] = [None, DEPLOYMENTS, JOBS, JOBS, LLAMA_SERVERS]

REPORTS: list[tuple[Any, int]] = [
    *[({"record": RECORD}, 0)] * 3,
    ({"unplannable": "the memory of the architecture 't5' is not planned"}, 0),
    ({"record": "1.AAAA"}, 0),
    ("Segmentation fault", 0),
    ({"reason": "ModelNotFound", "message": "GET: 404"}, 1),
    ({"reason": "ModelUnreachable", "message": "connection refused"}, 75),
]


class World(DisturbedServer):
    """A cluster with one server, nodes with GPUs, and Jobs that report anything."""

    kinds = KINDS

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        apply_server(self.cluster, contextPerSlot="auto")

    @property
    def steps(self) -> list[Callable[[], object]]:
        return [
            *(self.change_spec, self.change_spec, self.end_job, self.end_job, self.end_job),
            *(self.lose_pods, self.delete_job, self.add_node, self.remove_node),
            *self.common_steps,
        ]

    def change_spec(self) -> None:
        update_spec(self.cluster, **self.rng.choice(SPECS))

    def end_job(self) -> None:
        self.report(*self.rng.choice(REPORTS))

    def report(self, message: Any, code: int) -> None:
        for job in inspections(self.cluster):
            text = message if isinstance(message, str) else json.dumps(message)
            state = terminated(text, code=code)
            container = {"name": "download", "image": DOWNLOAD_IMAGE, "ready": False}
            pod = pod_of(job, 0, ready=False)
            self.cluster.put(
                pod | {"status": {"containerStatuses": [container | {"state": state}]}}
            )
            now = rfc3339(self.operator.time.clock.wall())
            ended = {**SUCCEEDED} if code == 0 else failed("PodFailurePolicy", now)
            status = {"conditions": [ended], **({} if code else {"completionTime": now})}
            self.cluster.put(job | {"status": status})

    def lose_pods(self) -> None:
        for name, pod in self.cluster.by_name(PODS).items():
            if pod["metadata"]["labels"].get("slotkeeper.dev/component") == "inspection":
                self.cluster.remove(PODS, KEY.namespace, name)

    def delete_job(self) -> None:
        for job in inspections(self.cluster):
            self.cluster.remove(JOBS, KEY.namespace, job["metadata"]["name"])

    def add_node(self) -> None:
        add_gpu_node(self.cluster, self.rng.choice("ab"), self.rng.choice(["81920", "15360", "x"]))

    def remove_node(self) -> None:
        for name in list(self.cluster.by_name(NODES)):
            self.cluster.remove(NODES, "", name)


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_left_of_random_faults(seed: int) -> None:
    rng = Random(seed)
    world = World(rng)

    for _ in range(STEPS):
        rng.choice(world.steps)()
        # Often longer than the pause before another Job.
        world.time.elapsed += rng.choice([0, 0, 700, 3700])
        seconds, before = rng.randint(1, MAX_SECONDS), len(world.operator.passes)
        await world.run_for(seconds)
        assert len(world.operator.passes) - before <= 40 + 12 * seconds
    await end(world)
    world.cluster.writes.clear()
    await world.run_for(100)

    assert world.cluster.writes == []
    assert not world.operator.queue.is_failing(KEY)
    assert inspections(world.cluster) == []
    assert condition(world.cluster, "FitsMemory")["status"] != "Unknown"
    assert all(len(choices) <= 1 for choices in choices_of_each_spec(world).values())
    assert context(world) == server_status(world.cluster)["memory"].get("contextPerSlot", 4096)


def choices_of_each_spec(world: World) -> dict[int, set[tuple[str, str]]]:
    """The contexts and layers that replicas got, by generation of the server's spec."""
    found: dict[int, set[tuple[str, str]]] = {}
    generation, before = 0, ("", "")
    for change in world.cluster.history:
        item = change.after or {}
        if item.get("kind") == "LlamaServer":
            generation = item["metadata"]["generation"]
        name = item.get("metadata", {}).get("name")
        if item.get("kind") != "Deployment" or name != "chat-replicas":
            continue
        args = item["spec"]["template"]["spec"]["containers"][0]["args"]
        context, layers = (args[args.index(flag) + 1] for flag in ("--ctx-size", "--n-gpu-layers"))
        # Replicas of the spec before are kept until there is a choice.
        if item["spec"]["replicas"] and (context, layers) != before:
            before = context, layers
            found.setdefault(generation, set()).add(before)
    return found


def context(world: World) -> int:
    """The context of a slot in the Deployment of the replicas."""
    template = world.cluster.by_name(DEPLOYMENTS)["chat-replicas"]["spec"]["template"]
    args = template["spec"]["containers"][0]["args"]
    slots, context = (int(args[args.index(flag) + 1]) for flag in ("--parallel", "--ctx-size"))
    return context // slots


async def end(world: World) -> None:
    """End all faults, with a GPU of known size, and let the Job report sizes of another model."""
    model = {"url": "https://models.example.com/last.gguf"}
    update_spec(world.cluster, gpu={"memory": "15Gi"}, suspend=False, replicas=1, model=model)
    world.free_name()
    world.recover()
    # As long as another Job waits after a failure.
    world.time.elapsed += 3600
    await world.run_for(310)
    world.report({"record": RECORD}, 0)
    await world.finish()
