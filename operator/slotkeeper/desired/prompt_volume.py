"""The volume with the files of prompts: where it is mounted, and by which containers."""

from slotkeeper.api.prompt_cache import PromptCache
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.download_settings import NO_SETTINGS, DownloadSettings
from slotkeeper.desired.metadata import Manifest

VOLUME = "prompt-files"
FOLDER = "/prompt-files"
"""Where the server's own folder is mounted, in llama-server and its sidecar. In the container that
creates that folder: where the whole volume is."""


def has_storage(server: LlamaServer, settings: DownloadSettings) -> bool:
    """Whether the files have the storage that the server names: the chart may not allow it."""
    cache = server.spec.prompt_cache
    return not (cache and cache.node) or settings.node_prompts_path is not None


def volumes(server: LlamaServer, settings: DownloadSettings) -> list[Manifest]:
    """Return the pod's volume; none without a cache."""
    cache = server.spec.prompt_cache
    return [{"name": VOLUME, **_source(server, cache, settings)}] if cache else []


def claims(server: LlamaServer) -> list[Manifest]:
    """Return the volume of a pod that removes the server's folder from its claim."""
    return volumes(server, NO_SETTINGS)


def mount(server: LlamaServer) -> Manifest:
    """Return the mount of the server's own folder, for those who use it."""
    return {**whole_mount(), **_sub_path(server)}


def whole_mount() -> Manifest:
    """Return the mount of the whole volume, for the container that creates the folder."""
    return {"name": VOLUME, "mountPath": FOLDER}


def created_folder(server: LlamaServer) -> str:
    """Return the path of the server's folder where the whole volume is mounted."""
    return "/".join((FOLDER, *_sub_path(server).values()))


def _sub_path(server: LlamaServer) -> dict[str, str]:
    cache = server.spec.prompt_cache
    # Other servers may use the same claim. By uid: a new server of the same name must not get the
    # prompts of a deleted one.
    return {"subPath": server.uid} if cache and cache.claim_name else {}


def _source(server: LlamaServer, cache: PromptCache, settings: DownloadSettings) -> Manifest:
    if cache.claim_name is not None:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    if cache.node and settings.node_prompts_path is not None:
        # It must exist: the node's agent creates it, and removes it with the server.
        path = f"{settings.node_prompts_path}/{server.namespace}/{server.uid}"
        return {"hostPath": {"path": path, "type": "Directory"}}
    return {"emptyDir": {}}
