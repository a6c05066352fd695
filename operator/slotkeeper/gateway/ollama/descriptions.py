"""Descriptions of models in Ollama's format: lists, and one model. Pure."""

import hashlib
from collections.abc import Iterable
from typing import Any

from slotkeeper.gateway.models import Model
from slotkeeper.gateway.ollama.responses import timestamp
from slotkeeper.gateway.targets import Target
from slotkeeper.llamacpp.model_info import ModelInfo

Json = dict[str, Any]

VERSION = "0.12.11"
"""Version of Ollama whose API this is. Clients compare it with the one that they require."""
_LATEST = ":latest"
_CAPABILITIES = {"completion": "completion", "embedding": "embedding", "embeddings": "embedding"}


def listed_name(name: str) -> str:
    """Return a name with a tag: some clients add `:latest` before they look for it in a list."""
    return name if ":" in name.rpartition("/")[2] else name + _LATEST


def without_latest(name: str) -> str:
    """Return a name without the tag `:latest`."""
    return name.removesuffix(_LATEST)


def listed(models: Iterable[tuple[str, Target, ModelInfo]]) -> Json:
    """Return the response to /api/tags."""
    return {"models": [_entry(name, model, info) for name, model, info in models]}


def running(models: Iterable[tuple[str, Target, ModelInfo]]) -> Json:
    """Return the response to /api/ps: the models that are loaded.

    When they are unloaded, and how much memory of a GPU they occupy, is not known.
    """
    entries = []
    for name, model, info in models:
        # Whether those of external backends are loaded is not known.
        if not isinstance(model, Model) or model.state != "Ready":
            continue
        entry = _entry(name, model, info)
        del entry["modified_at"]
        if (context := _number(info, "n_ctx")) is not None:
            entry["context_length"] = context
        entries.append(entry)
    return {"models": entries}


def shown(model: Target, info: ModelInfo) -> Json:
    """Return the response to /api/show."""
    sizes = {
        "general.parameter_count": _number(info, "n_params"),
        "general.context_length": _number(info, "n_ctx"),
        "general.embedding_length": _number(info, "n_embd"),
    }
    return {
        "details": _details(info),
        "model_info": {name: size for name, size in sizes.items() if size is not None},
        "capabilities": _capabilities(info),
        "modified_at": timestamp(_created(model)),
    }


def _entry(name: str, model: Target, info: ModelInfo) -> Json:
    digest = hashlib.sha256(_version(model).encode()).hexdigest()
    return {
        "name": listed_name(name),
        "model": listed_name(name),
        "modified_at": timestamp(_created(model)),
        "size": _number(info, "size") or 0,
        "digest": digest,
        "details": _details(info),
    }


def _version(model: Target) -> str:
    """What changes with the LlamaServer: clients identify a version of a model by it."""
    if isinstance(model, Model):
        return f"{model.uid}/{model.generation}"
    return f"{model.backend.name}/{model.upstream_name}"


def _created(model: Target) -> int:
    return model.created if isinstance(model, Model) else 0


def _details(info: ModelInfo) -> Json:
    parameters = _number(info, "n_params")
    quantization = info.model.get("meta", {}).get("ftype")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "",
        "families": [],
        "parameter_size": "" if parameters is None else _rounded(parameters),
        "quantization_level": quantization if isinstance(quantization, str) else "",
    }


def _capabilities(info: ModelInfo) -> list[str]:
    found = [_CAPABILITIES[each] for each in info.capabilities if each in _CAPABILITIES]
    architecture = info.model.get("architecture")
    modalities = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    if isinstance(modalities, list) and "image" in modalities:
        found.append("vision")
    template = info.props.get("chat_template_caps")
    if isinstance(template, dict) and template.get("supports_tools") is True:
        found.append("tools")
    return found


def _number(info: ModelInfo, name: str) -> int | None:
    meta = info.model.get("meta")
    value = meta.get(name) if isinstance(meta, dict) else None
    return value if type(value) is int else None


def _rounded(parameters: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)
