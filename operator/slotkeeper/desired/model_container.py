"""The init container of a replica: it downloads and checks the model and what belongs to it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from slotkeeper.api.model import Adapter, Model, Projector
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest, container_security_context
from slotkeeper.flags import DownloadFlags

MODELS_FOLDER = "/models"
MODELS_VOLUME = "models"

TOKEN_FOLDER = "/etc/slotkeeper/model-token"  # noqa: S105 (a folder)
TOKEN_FILE = "token"  # noqa: S105 (a file's name)


@dataclass(frozen=True)
class Paths:
    """Where a server's files are in its replicas' pods."""

    model: str
    mmproj: str | None
    adapters: tuple[str, ...]


def paths(model: Model) -> Paths:
    """Where the files of a model are to be."""
    return Paths(
        model=_path(model, model, "model"),
        mmproj=_path(model, model.mmproj, "mmproj") if model.mmproj else None,
        adapters=tuple(
            _path(model, adapter, f"adapter-{number}")
            for number, adapter in enumerate(model.adapters)
        ),
    )


def container(server: LlamaServer, images: Images) -> Manifest:
    """Ends well when all files are downloaded and checked, or else says why in its last words."""
    token = [{"name": names.TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": True}]
    return {
        "name": names.DOWNLOAD_CONTAINER,
        "image": images.download,
        "imagePullPolicy": images.pull_policy,
        "command": list(_command(server.spec.model)),
        # Not a pod's worth of cost: a pod asks for the greater of its init container and the rest.
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": container_security_context(),
        # It writes there itself what the model is, or why it failed, for the server's status.
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": MODELS_VOLUME, "mountPath": MODELS_FOLDER},
            *(token if server.spec.model.token_secret_ref else []),
        ],
    }


def volumes(model: Model) -> list[Manifest]:
    """The volumes of a pod that downloads this model."""
    return [{"name": MODELS_VOLUME, **_storage(model)}, *_token(model)]


def _command(model: Model) -> Iterator[str]:
    found = paths(model)
    yield from ("slotkeeper", "download")
    if model.token_secret_ref:
        yield from (DownloadFlags.TOKEN_FILE, f"{TOKEN_FOLDER}/{TOKEN_FILE}")
    yield from _file(DownloadFlags.MODEL, model, found.model)
    if model.mmproj and found.mmproj:
        yield from _file(DownloadFlags.MMPROJ, model.mmproj, found.mmproj)
    for adapter, path in zip(model.adapters, found.adapters, strict=True):
        yield from _file(DownloadFlags.ADAPTER, adapter, path)


def _file(flag: str, file: Model | Projector | Adapter, path: str) -> Iterator[str]:
    # Kubernetes would take $(NAME) in a URL for a variable, and $$ for one $.
    yield from (flag, file.url.replace("$", "$$"))
    if file.sha256:
        yield from (DownloadFlags.SHA256, file.sha256.lower())
    yield from (DownloadFlags.TO, path)


def _path(model: Model, file: Model | Projector | Adapter, name: str) -> str:
    if model.cache.claim_name is None:
        return f"{MODELS_FOLDER}/{name}.gguf"
    # What others keep in the claim has other names: the content's where it is known.
    address = hashlib.sha256(file.url.encode()).hexdigest()
    content = f"sha256-{file.sha256.lower()}" if file.sha256 else f"url-{address}"
    return f"{MODELS_FOLDER}/{content}.gguf"


def _storage(model: Model) -> Manifest:
    cache = model.cache
    if cache.claim_name is not None:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    # As text, as the API server gives it back.
    return {"emptyDir": {} if cache.size_limit is None else {"sizeLimit": str(cache.size_limit)}}


def _token(model: Model) -> list[Manifest]:
    if model.token_secret_ref is None:
        return []
    secret = {
        "secretName": model.token_secret_ref.name,
        "items": [{"key": model.token_secret_ref.key, "path": TOKEN_FILE}],
        # Readable for the group, which fsGroup makes the container's own.
        "defaultMode": 0o440,
        "optional": False,
    }
    return [{"name": names.TOKEN_VOLUME, "secret": secret}]
