"""The files of prompts: what makes one usable, and the containers that keep them."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator

from slotkeeper.api.prompt_cache import PromptCache
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import llama_container, model_container, names, prompt_volume, resources
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import MIB, Manifest, container_security_context
from slotkeeper.flags import LogFlags, PromptFilesFlags
from slotkeeper.llamacpp.kv_cache import token_bytes_of_8b

MIN_FREE_PERCENT = 5
MIN_FREE_PERCENT_OF_NODE = 15
"""Part of the disk that is left free. The kubelet evicts pods from a node below 10 by default."""

_PROCESS_MIB = 128

_CREATE_SCRIPT = 'mkdir -p -m 0700 "$0" && exec "$@"'
"""Not left to the kubelet, by `subPath`: it would create the folder as root."""

_IRRELEVANT = {
    # Where files are, and how the model is called: the sources of the files count instead.
    "--model": 1,
    "--mmproj": 1,
    "--alias": 1,
    "-a": 1,
    # How requests arrive, and how many. The context of one slot counts instead of that of all.
    "--host": 1,
    "--port": 1,
    "--parallel": 1,
    "--ctx-size": 1,
    "--cont-batching": 0,
    "--no-kv-unified": 0,
    "--cache-ram": 1,
    "--ctx-checkpoints": 1,
    "--slot-save-path": 1,
    "--metrics": 0,
    "--slots": 0,
    "--no-webui": 0,
    "--threads-http": 1,
    "--timeout": 1,
    "-to": 1,
    # How a response is chosen, which is not part of what is computed of its prompt.
    "--temp": 1,
    "--top-k": 1,
    "--top-p": 1,
    "--min-p": 1,
    "--repeat-penalty": 1,
    "--repeat-last-n": 1,
    "--presence-penalty": 1,
    "--frequency-penalty": 1,
    "--seed": 1,
    # Which tokens are guessed, of which only right ones stay. Drafts are never used with files.
    "--spec-type": 1,
    "--spec-ngram-simple-size-m": 1,
    "--spec-ngram-map-k-size-m": 1,
    "--spec-ngram-map-k4v-size-m": 1,
    "--spec-ngram-mod-n-max": 1,
    "--spec-ngram-mod-n-min": 1,
    # Who computes, not what.
    "--threads": 1,
    "-t": 1,
    "--threads-batch": 1,
    "-tb": 1,
    "--prio": 1,
    "--poll": 1,
    "--mlock": 0,
    "--no-mmap": 0,
    "--no-warmup": 0,
    # What is logged.
    "--log-colors": 1,
    "--log-file": 1,
    "--log-prefix": 0,
    "--log-timestamps": 0,
    "--log-verbosity": 1,
    "--verbose": 0,
    "-v": 0,
    "-lv": 1,
}
"""Flags of llama-server that make no difference to the state of a slot, and to which prompt is
which, with the number of their values. All others are part of the identity: a flag that is missing
here only makes files unusable that could be used."""


_FLAG = re.compile("--?[A-Za-z]")
"""Never taken for a value: some builds have a flag without the value that others require."""


def identity(server: LlamaServer, images: Images) -> str:
    """Return what must be equal for a file to be usable, as 16 hexadecimal digits.

    It is everything that the spec says about the state of a slot, and about the text of a prompt:
    files are looked up by hashes of requests, which must always become the same text. What the spec
    does not show, such as a new model at the same URL, the balancer compares.
    """
    spec = server.spec
    content = {
        "files": model_container.sources(spec),
        "image": images.llama_server_for(server),
        "contextPerSlot": spec.context_tokens,
        "arguments": list(_relevant(llama_container.arguments(server))),
        "env": [
            each.model_dump(by_alias=True, exclude_none=True) for each in spec.pod_template.env
        ],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_path(server: LlamaServer, images: Images) -> str | None:
    """Return the folder in which llama-server saves slots; None without a cache."""
    if server.spec.prompt_cache is None:
        return None
    return f"{prompt_volume.FOLDER}/{identity(server, images)}/"


def init_containers(server: LlamaServer, images: Images) -> list[Manifest]:
    """Return the containers that start before llama-server; none without a cache.

    The first creates the folder. The second is a sidecar: it runs as long as the pod, and ends
    after llama-server has been stopped.
    """
    cache = server.spec.prompt_cache
    if cache is None:
        return []
    prepare = [
        *_create_folder(server),
        *_command(server, cache, images, prompt_volume.created_folder(server)),
        PromptFilesFlags.PREPARE,
    ]
    serve = [
        *_command(server, cache, images, prompt_volume.FOLDER),
        *(PromptFilesFlags.LISTEN, f"[::]:{names.PROMPT_FILES_PORT}"),
        *(LogFlags.FORMAT, "json"),
        *_models(server),
    ]
    return [
        {
            **_container(names.PREPARE_PROMPT_FILES_CONTAINER, prepare, images),
            "resources": resources.of_init_container(server.spec.resources),
            "volumeMounts": [prompt_volume.whole_mount()],
        },
        {
            **_container(names.PROMPT_FILES_CONTAINER, serve, images),
            "restartPolicy": "Always",
            "ports": [
                {
                    "name": names.PROMPT_FILES,
                    "protocol": "TCP",
                    "containerPort": names.PROMPT_FILES_PORT,
                }
            ],
            "resources": _sidecar_resources(server, cache),
            "volumeMounts": [
                prompt_volume.mount(server),
                *model_container.read_only_mounts(server.spec),
            ],
        },
    ]


def _create_folder(server: LlamaServer) -> Iterator[str]:
    """The start of a command that first creates the server's folder on a volume of several."""
    folder = prompt_volume.created_folder(server)
    if folder != prompt_volume.FOLDER:
        yield from ("sh", "-c", _CREATE_SCRIPT, folder)


def _relevant(arguments: Iterable[str]) -> Iterator[str]:
    skipped = 0
    for argument in arguments:
        if skipped and not _FLAG.match(argument):
            skipped -= 1
        elif argument in _IRRELEVANT:
            skipped = _IRRELEVANT[argument]
        else:
            yield argument


def _container(name: str, command: list[str], images: Images) -> Manifest:
    return {
        "name": name,
        # It serves HTTP as a balancer does: that of the download has no parser of requests.
        "image": images.balancer,
        "imagePullPolicy": images.pull_policy,
        "command": command,
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _command(server: LlamaServer, cache: PromptCache, images: Images, folder: str) -> Iterator[str]:
    yield from ("slotkeeper", "prompt-files")
    yield from (PromptFilesFlags.FOLDER, folder)
    yield from (PromptFilesFlags.IDENTITY, identity(server, images))
    yield from (PromptFilesFlags.SIZE_LIMIT, str(cache.size_limit))
    free = MIN_FREE_PERCENT if cache.claim_name else MIN_FREE_PERCENT_OF_NODE
    yield from (PromptFilesFlags.MIN_FREE_PERCENT, str(free))


def _models(server: LlamaServer) -> Iterator[str]:
    """The model's files, of which the agent takes a fingerprint: a URL may get another content."""
    for path in model_container.mounted_files(server.spec):
        yield from (PromptFilesFlags.MODEL, path)


def _sidecar_resources(server: LlamaServer, cache: PromptCache) -> Manifest:
    found = resources.of_sidecar(_memory_mib(server))
    storage = "ephemeral-storage"
    limits = server.spec.resources.limits
    if cache.empty_dir and storage in limits:
        # Files in an emptyDir count as storage of the pod, which is evicted above the sum.
        found["limits"][storage] = str(cache.size_limit)
        found["requests"][storage] = str(cache.size_limit)
    return found


def _memory_mib(server: LlamaServer) -> int:
    """Return the memory limit of the sidecar: the pages of a file that it reads ahead count, and a
    file as large as a slot must fit."""
    spec = server.spec
    slot = spec.context_tokens * token_bytes_of_8b(spec.kv_cache_type)
    return _PROCESS_MIB + math.ceil(slot / MIB)
