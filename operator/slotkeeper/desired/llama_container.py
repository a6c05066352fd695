"""The container of a replica that serves: its llama-server."""

from math import ceil
from typing import Literal

from slotkeeper.api import quantity
from slotkeeper.api.extra_args import flags_of
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.resources import Resources
from slotkeeper.api.server import LlamaServer, LlamaServerSpec
from slotkeeper.api.serving import FlashAttention, Reasoning
from slotkeeper.desired import model_container, names
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest, container_security_context
from slotkeeper.llamacpp.argv import ALL_LAYERS, Chat, Embeddings, Gpus, Serving, argv

LOADING_SECONDS = 3600
"""How long a model may take to load before its container is started anew."""

CACHE_RAM_MIB_AT_MOST = 2048
CACHE_RAM_MIB_UNBOUNDED = 512
"""Prompt cache of a replica that says nothing of memory. It then grows on what the node has left
for all its pods, so that it has to be little; none at all would make each turn of a conversation
that lost its slot cost its whole prompt again."""

REPLICA = "SLOTKEEPER_REPLICA"
"""Variable with the number of a replica that has workers."""

ENDPOINT_PROPAGATION_SECONDS = 2
"""How long it takes, generously, until the balancer has heard that a replica goes."""

_SLOTS_URL = f"http://127.0.0.1:{names.LLAMA_SERVER_PORT}/slots"
DRAIN_SCRIPT = f"""\
sleep {ENDPOINT_PROPAGATION_SECONDS}
while slots=$(curl --silent --fail --max-time 5 {_SLOTS_URL}) || [ $? -eq 28 ]; do
  case $slots in
    '' | *'"is_processing":true'* | *'"is_processing": true'*) sleep 1 ;;
    *) exit 0 ;;
  esac
done
"""
"""Ends when no slot is busy any more. A late answer, curl's status 28, is a busy llama-server; any
other failure, curl missing too, ends the wait."""


def container(server: LlamaServer, images: Images) -> Manifest:
    """Serves the model once its init container has brought it."""
    spec = server.spec
    env = [
        variable.model_dump(by_alias=True, exclude_none=True) for variable in spec.pod_template.env
    ]
    return {
        "name": names.LLAMA_SERVER_CONTAINER,
        "image": spec.image or images.llama_server_for(spec.gpu),
        "imagePullPolicy": images.pull_policy,
        # No command: an image's entrypoint knows where its llama-server is.
        "args": argv(_serving(server)),
        **({"env": env} if env else {}),
        "ports": [
            {"name": names.HTTP, "protocol": "TCP", "containerPort": names.LLAMA_SERVER_PORT}
        ],
        "resources": resources(spec.resources, spec.gpu),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {
                "name": model_container.MODELS_VOLUME,
                "mountPath": model_container.MODELS_FOLDER,
                "readOnly": True,
            },
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a path in the container)
            *(
                mount.model_dump(by_alias=True, exclude_none=True)
                for mount in spec.pod_template.volume_mounts
            ),
        ],
        "startupProbe": {
            "httpGet": _health(),
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": LOADING_SECONDS,
        },
        "readinessProbe": {
            "httpGet": _health(),
            "periodSeconds": 5,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        # No livenessProbe: /health can stall for as long as a long prompt takes, and a restart
        # would cut every stream and load the model again.
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", DRAIN_SCRIPT]}}},
    }


def worker_hosts(server: LlamaServer) -> list[str]:
    """Names of a replica's workers; $(REPLICA) in them is the pod's number, as its variable."""
    count = server.spec.pods_per_replica - 1
    return [names.worker_host(server, number, f"$({REPLICA})") for number in range(count)]


def _health() -> Manifest:
    return {"path": "/health", "port": names.HTTP}


def _serving(server: LlamaServer) -> Serving:
    spec = server.spec
    paths = model_container.paths(server.spec.model)
    return Serving(
        model_path=paths.model,
        alias=server.model_name,
        slots=spec.slots,
        context_per_slot=spec.context_per_slot,
        cache_ram_mib=cache_ram_mib(spec),
        port=names.LLAMA_SERVER_PORT,
        kv_cache_type=spec.kv_cache_type,
        flash_attention=_FLASH_ATTENTION[spec.flash_attention],
        gpus=_gpus(spec),
        workers=tuple(f"{host}:{names.RPC_PORT}" for host in worker_hosts(server)),
        chat=_chat(spec),
        embeddings=Embeddings(spec.embeddings.pooling) if spec.embeddings else None,
        threads=_threads(spec),
        mmproj=paths.mmproj,
        adapters=tuple(
            (path, adapter.scale)
            for path, adapter in zip(paths.adapters, spec.model.adapters, strict=True)
        ),
        extra=tuple(spec.extra_args),
    )


_FLASH_ATTENTION: dict[FlashAttention, Literal["on", "off", "auto"]] = {
    "auto": "auto",
    "enabled": "on",
    "disabled": "off",
}


def _gpus(spec: LlamaServerSpec) -> Gpus | None:
    gpu = spec.gpu
    # Workers on the CPU are devices as well.
    if not gpu.count and not spec.workers:
        return None
    return Gpus(
        layers=ALL_LAYERS if gpu.layers is None else gpu.layers,
        split_mode=gpu.split_mode,
        tensor_split=tuple(gpu.tensor_split or ()),
    )


def _chat(spec: LlamaServerSpec) -> Chat:
    reasoning = spec.reasoning
    return Chat(
        jinja=spec.jinja,
        # Kubernetes would take $(NAME) in a template for a variable, and $$ for one $.
        template=spec.chat_template and spec.chat_template.replace("$", "$$"),
        reasoning=_switch(reasoning),
        reasoning_format=reasoning.format,
        reasoning_budget=reasoning.budget_tokens,
    )


def _switch(reasoning: Reasoning) -> Literal["on", "off", "auto"]:
    if reasoning.enabled is None:
        return "auto"
    return "on" if reasoning.enabled else "off"


def _threads(spec: LlamaServerSpec) -> int | None:
    if not flags_of(spec.extra_args).isdisjoint(("-t", "--threads")):
        return None
    return threads(spec.resources)


def threads(said: Resources) -> int | None:
    """Threads for the CPU limit, if there is one."""
    cpus = said.limits.get("cpu")
    # A thread for each of the node's cores would only have the limit throttle them all.
    return None if cpus is None else max(1, ceil(quantity.parse(cpus)))


def cache_ram_mib(spec: LlamaServerSpec) -> int:
    """MiB for the prompt cache: a quarter of the memory limit, or of the request without one.

    None where there are no conversations whose beginnings come again.
    """
    if spec.embeddings:
        return 0
    said = spec.resources
    memory = said.limits.get("memory", said.requests.get("memory"))
    if memory is None:
        return CACHE_RAM_MIB_UNBOUNDED
    return min(CACHE_RAM_MIB_AT_MOST, int(quantity.parse(memory) / 4 / 1024**2))


def resources(said: Resources, gpu: Gpu) -> Manifest:
    """Resources of a container that computes, its GPUs among them."""
    gpus = {gpu.resource_name: gpu.count} if gpu.count else {}
    wanted = {
        "requests": {**said.requests, **gpus},
        "limits": {**said.limits, **gpus},
    }
    # As text, as the API server gives them back.
    return {
        kind: {name: str(amount) for name, amount in amounts.items()}
        for kind, amounts in wanted.items()
        if amounts
    }
