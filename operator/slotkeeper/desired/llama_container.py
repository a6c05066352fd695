"""The container of a replica that runs llama-server."""

import json
from math import ceil
from typing import Literal

from slotkeeper.api import quantity
from slotkeeper.api.extra_args import flags_of
from slotkeeper.api.resources import Resources
from slotkeeper.api.server import LlamaServer, LlamaServerSpec
from slotkeeper.api.serving import FlashAttention, Reasoning
from slotkeeper.desired import model_container, names, prompt_volume, resources
from slotkeeper.desired.images import Images
from slotkeeper.desired.literal import literal
from slotkeeper.desired.metadata import Manifest, container_security_context
from slotkeeper.llamacpp.argv import (
    ALL_LAYERS,
    Chat,
    Embeddings,
    Gpus,
    Sampling,
    Serving,
    Speculative,
    argv,
)

LOADING_SECONDS = 3600
"""Maximum time in seconds for loading a model, before the container is restarted."""

MAX_CACHE_RAM_MIB = 2048
DEFAULT_CACHE_RAM_MIB = 512
"""Prompt cache of a replica without a memory limit or request. Small, because it takes memory that
all pods of the node share. Not zero, because each turn of a conversation that lost its slot would
then process its whole prompt again."""

READINESS_PERIOD_SECONDS = 5
READINESS_FAILURES = 6
"""Readiness probes that have to fail, in a row."""

LIVENESS_PERIOD_SECONDS = 10
"""Between two liveness probes, each of which may take as long."""

REPLICA_VARIABLE = "SLOTKEEPER_REPLICA"
"""Environment variable with the index of a replica that has workers."""

LOG_LEVEL_VARIABLE = "LLAMA_ARG_LOG_VERBOSITY"
LOG_LEVEL = "4"
"""Of llama-server with GPUs, whose log has to show which devices it uses. No level below 5 logs
prompts."""

ENDPOINT_PROPAGATION_SECONDS = 2
"""Upper estimate of the time until the balancer is notified that a replica terminates."""

_SLOTS_URL = f"http://127.0.0.1:{names.LLAMA_SERVER_PORT}/slots"
_PROPAGATION = f"sleep {ENDPOINT_PROPAGATION_SECONDS}\n"
_WAIT_UNTIL_IDLE = f"""\
while slots=$(curl --silent --fail --max-time 5 {_SLOTS_URL}) || [ $? -eq 28 ]; do
  case $slots in
    '' | *'"is_processing":true'* | *'"is_processing": true'*) sleep 1 ;;
    *) exit 0 ;;
  esac
done
"""
DRAIN_SCRIPT = _PROPAGATION + _WAIT_UNTIL_IDLE
"""Waits until no slot is busy. A timeout, curl's status 28, means that llama-server is busy; any
other failure ends the wait, even if curl is missing."""

SAVE_SECONDS = 15
"""Maximum time in which the balancer saves the prompts of a replica that has drained. Longer than
its own limit, so that what it has begun is complete."""
_MAX_SAVE_SECONDS = SAVE_SECONDS + 5

_SAVED_URL = f"http://127.0.0.1:{names.PROMPT_FILES_PORT}/wait-done?seconds={SAVE_SECONDS}"
DRAIN_AND_SAVE_SCRIPT = f"""\
idle() (
{_WAIT_UNTIL_IDLE})
{_PROPAGATION}\
idle
curl --silent --max-time {_MAX_SAVE_SECONDS} '{_SAVED_URL}' || true
idle
"""
"""Waits then until the balancer has saved the prompts that are in the slots, which llama-server has
to serve meanwhile. Whatever fails there keeps no pod from ending.

And waits until no slot is busy again: a request whose prompt was being restored occupied none."""


def grace_period(spec: LlamaServerSpec) -> int:
    """Return the seconds in which a replica's pod may drain, and save its prompts."""
    return spec.update.drain_timeout_seconds + (_MAX_SAVE_SECONDS if spec.prompt_cache else 0)


def container(server: LlamaServer, images: Images, slot_save_path: str | None = None) -> Manifest:
    """Return the container, which serves the model that the init container has downloaded.

    `slot_save_path`: the folder in which it saves slots; None without a prompt cache.
    """
    spec = server.spec
    drain = DRAIN_SCRIPT if slot_save_path is None else DRAIN_AND_SAVE_SCRIPT
    env = [*_log_level(spec), *environment(spec)]
    return {
        "name": names.LLAMA_SERVER_CONTAINER,
        "image": images.llama_server_for(server),
        "imagePullPolicy": images.pull_policy,
        # No command: the path of llama-server differs between images; it is their entrypoint.
        "args": arguments(server, slot_save_path),
        **({"env": env} if env else {}),
        "ports": [
            {"name": names.HTTP, "protocol": "TCP", "containerPort": names.LLAMA_SERVER_PORT}
        ],
        "resources": resources.with_gpus(spec.resources, spec.gpu),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *model_container.read_only_mounts(spec),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a path in the container)
            *([] if slot_save_path is None else [prompt_volume.mount(server)]),
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
            "periodSeconds": READINESS_PERIOD_SECONDS,
            "timeoutSeconds": 10,
            "failureThreshold": READINESS_FAILURES,
        },
        **_liveness(spec.unresponsive_seconds),
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", drain]}}},
    }


def environment(spec: LlamaServerSpec) -> list[Manifest]:
    """Return the variables of `podTemplate`."""
    return [each.model_dump(by_alias=True, exclude_none=True) for each in spec.pod_template.env]


def _log_level(spec: LlamaServerSpec) -> list[Manifest]:
    """Return the variable by which llama-server logs its devices, and where the model is: they are
    of level 4 since b9209. A flag in extraArgs takes precedence over it."""
    return [{"name": LOG_LEVEL_VARIABLE, "value": LOG_LEVEL}] if spec.gpu.count else []


def arguments(server: LlamaServer, slot_save_path: str | None = None) -> list[str]:
    """Return the arguments of llama-server."""
    return argv(_serving(server, slot_save_path))


def worker_hosts(server: LlamaServer) -> list[str]:
    """Return the host names of a replica's workers, with $(REPLICA_VARIABLE) for its index."""
    count = server.spec.pods_per_replica - 1
    return [names.worker_host(server, number, f"$({REPLICA_VARIABLE})") for number in range(count)]


def _liveness(seconds: int) -> Manifest:
    """Return the probe that restarts a llama-server that processes nothing any more.

    Not /health: it responds while the loop that processes requests hangs. And not soon: a restart
    aborts all requests and loads the model again, and /slots cannot respond during a batch.
    """
    if not seconds:
        return {}
    return {
        "livenessProbe": {
            "httpGet": {"path": "/slots", "port": names.HTTP},
            "periodSeconds": LIVENESS_PERIOD_SECONDS,
            "timeoutSeconds": LIVENESS_PERIOD_SECONDS,
            "failureThreshold": ceil(seconds / LIVENESS_PERIOD_SECONDS),
            # Without it, the preStop hook would wait for the slots as for a drain.
            "terminationGracePeriodSeconds": LIVENESS_PERIOD_SECONDS,
        }
    }


def _health() -> Manifest:
    return {"path": "/health", "port": names.HTTP}


def _serving(server: LlamaServer, slot_save_path: str | None) -> Serving:
    spec = server.spec
    paths = model_container.paths(server.spec)
    return Serving(
        model_path=paths.model,
        alias=server.model_name,
        slots=spec.slots,
        context_per_slot=spec.context_tokens,
        cache_ram_mib=cache_ram_mib(spec),
        host=spec.listen_address,
        port=names.LLAMA_SERVER_PORT,
        kv_cache_type=spec.kv_cache_type,
        flash_attention=_FLASH_ATTENTION[spec.flash_attention],
        gpus=_gpus(spec),
        workers=tuple(f"{host}:{names.RPC_PORT}" for host in worker_hosts(server)),
        chat=_chat(spec),
        sampling=Sampling(**spec.sampling.model_dump()) if spec.sampling else Sampling(),
        speculative=_speculative(spec, paths.draft),
        embeddings=Embeddings(spec.embeddings.pooling) if spec.embeddings else None,
        threads=_threads(spec),
        context_checkpoints=spec.context_checkpoints,
        slot_save_path=slot_save_path,
        mmproj=paths.mmproj,
        mmproj_offload=not spec.model.mmproj or spec.model.mmproj.offload,
        adapters=tuple(
            (path, adapter.scale)
            for path, adapter in zip(paths.adapters, spec.model.adapters, strict=True)
        ),
        extra=tuple(map(literal, spec.extra_args)),
    )


_FLASH_ATTENTION: dict[FlashAttention, Literal["on", "off", "auto"]] = {
    "auto": "auto",
    "enabled": "on",
    "disabled": "off",
}


def _gpus(spec: LlamaServerSpec) -> Gpus | None:
    gpu = spec.gpu
    # Workers without GPUs are devices too.
    if not gpu.count and not spec.workers:
        return None
    return Gpus(
        layers=ALL_LAYERS if gpu.layer_count is None else gpu.layer_count,
        cpu_moe_layers=gpu.cpu_moe_layers,
        split_mode=gpu.split_mode,
        main=gpu.main_gpu,
        tensor_split=tuple(gpu.tensor_split or ()),
    )


def _chat(spec: LlamaServerSpec) -> Chat:
    reasoning = spec.reasoning
    return Chat(
        jinja=spec.jinja,
        template=spec.chat_template and literal(spec.chat_template),
        template_kwargs=_template_kwargs(spec),
        reasoning=_on_off_auto(reasoning),
        reasoning_format=reasoning.format,
        reasoning_budget=reasoning.budget_tokens,
    )


def _speculative(spec: LlamaServerSpec, draft: str | None) -> Speculative | None:
    speculative = spec.speculative
    if speculative is None:
        return None
    layers = speculative.draft.gpu_layers if speculative.draft else None
    return Speculative(
        type=speculative.type,
        draft=draft,
        draft_layers=0 if not spec.gpu.count else ALL_LAYERS if layers is None else layers,
        max_tokens=speculative.max_tokens,
        min_probability=speculative.min_probability,
    )


def _template_kwargs(spec: LlamaServerSpec) -> str | None:
    if not spec.chat_template_kwargs:
        return None
    return literal(json.dumps(spec.chat_template_kwargs, sort_keys=True, separators=(",", ":")))


def _on_off_auto(reasoning: Reasoning) -> Literal["on", "off", "auto"]:
    if reasoning.enabled is None:
        return "auto"
    return "on" if reasoning.enabled else "off"


def _threads(spec: LlamaServerSpec) -> int | None:
    if not flags_of(spec.extra_args).isdisjoint(("-t", "--threads")):
        return None
    return threads(spec.resources)


def threads(limited: Resources) -> int | None:
    """Return the number of threads for the CPU limit; None without a limit."""
    cpus = limited.limits.get("cpu")
    # With one thread per core of the node, the kernel would throttle all of them.
    return None if cpus is None else max(1, ceil(quantity.parse(cpus)))


def cache_ram_mib(spec: LlamaServerSpec) -> int:
    """Return the MiB of the prompt cache: a quarter of the memory limit, or else of the request.

    0 for embeddings, which have no conversations with recurring prefixes.
    """
    if spec.embeddings:
        return 0
    requests, limits = spec.resources.requests, spec.resources.limits
    memory = limits.get("memory", requests.get("memory"))
    if memory is None:
        return DEFAULT_CACHE_RAM_MIB
    return min(MAX_CACHE_RAM_MIB, int(quantity.parse(memory) / 4 / 1024**2))
