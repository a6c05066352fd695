"""What llama-server reports of its model: parsers of `GET /v1/models` and `GET /props`.

Clients read it to select a prompt's length and format. Parts that differ between replicas, such as
paths and the random marker of media, are left out, and so is what cannot be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slotkeeper.bounded_json import parse

MAX_BYTES = 1024 * 1024
"""Of a response. The largest part is the chat template, of up to 100 kB."""

_PROPS = (
    "modalities",
    "chat_template",
    "chat_template_tool_use",
    "chat_template_caps",
    "bos_token",
    "eos_token",
    "model_ftype",
    "build_info",
)
_MODEL = ("architecture", "meta")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model of a replica, as JSON for responses."""

    model: Json = field(default_factory=dict)
    """Of the model's entry in `data` of /v1/models: its modalities, and its sizes in `meta`."""
    capabilities: tuple[str, ...] = ()
    """Of its entry in `models`: such as completion, multimodal."""
    props: Json = field(default_factory=dict)
    """Of /props: template, modalities, special tokens, build."""
    generation_params: Json = field(default_factory=dict)
    """Of /props: the defaults of a request's parameters."""


def parse_model_info(models: bytes, props: bytes) -> ModelInfo:
    """Return what the bodies of /v1/models and /props report. Never raises."""
    listed, described = _tree(models), _tree(props)
    entry = _first(listed.get("data"))
    capabilities = _first(listed.get("models")).get("capabilities")
    settings = described.get("default_generation_settings")
    params = settings.get("params") if isinstance(settings, dict) else None
    return ModelInfo(
        _selected(entry, _MODEL),
        tuple(each for each in capabilities if isinstance(each, str))
        if isinstance(capabilities, list)
        else (),
        _selected(described, _PROPS),
        params if isinstance(params, dict) else {},
    )


def _tree(body: bytes) -> Json:
    try:
        tree = parse(body, max_bytes=MAX_BYTES)
    except ValueError:
        tree = None
    return tree if isinstance(tree, dict) else {}


def _first(items: Any) -> Json:
    first = items[0] if isinstance(items, list) and items else None
    return first if isinstance(first, dict) else {}


def _selected(tree: Mapping[str, Any], names: tuple[str, ...]) -> Json:
    return {name: tree[name] for name in names if tree.get(name) is not None}
