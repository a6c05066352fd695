"""Models in a node's cache: names, files on the disk, and the pods that use them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from slotkeeper.node_folder import LOCK_SUFFIX

NODE_PATH = "/var/lib/slotkeeper/models"
"""Of the cache, on the node."""

HOUR_NS = 3600 * 10**9


def name_of(model: str) -> str:
    """The content ID of a model with this URL."""
    return f"url-{hashlib.sha256(model.encode()).hexdigest()}"


def write_model(
    folder: Path, model: str, size: int = 4096, *, used_ns: int = HOUR_NS, parts: int = 1
) -> list[Path]:
    """Write the files of a complete model, and its lock; return them."""
    folder.mkdir(exist_ok=True)
    files = []
    for number in range(1, parts + 1):
        part = f"-{number:05}-of-{parts:05}" if parts > 1 else ""
        file = folder / f"{name_of(model)}{part}.gguf"
        file.write_bytes(b"x" * size)
        record = file.with_name(f"{file.name}.json")
        record.write_text(json.dumps({"size": size}))
        files += [file, record]
    lock = files[0].with_name(files[0].name + LOCK_SUFFIX)
    lock.touch()
    os.utime(lock, ns=(used_ns, used_ns))
    return [*files, lock]


def pod(
    *models: str,
    namespace: str = "team",
    phase: str = "Running",
    path: str = NODE_PATH,
    folder: str | None = None,
) -> dict[str, Any]:
    """A pod that uses these models in the folder of its namespace, or in another one."""
    arguments = [f"/models/{name_of(model)}.gguf" for model in models]
    return {
        "metadata": {"namespace": namespace, "name": "-".join(("pod", *models))},
        "spec": {
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "models", "hostPath": {"path": f"{path}/{folder or namespace}"}},
            ],
            "initContainers": [{"name": "download", "command": ["slotkeeper", *arguments]}],
            "containers": [{"name": "llama-server", "args": ["--model", *arguments[:1]]}],
        },
        "status": {"phase": phase},
    }
