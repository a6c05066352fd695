"""LlamaServers for tests: raw, parsed, and the golden cases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slotkeeper.api.group import API_VERSION, KIND
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.images import Images

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = ROOT / "examples"

UID = "6f1e0c1c-5a0e-4b5e-9a5c-0d2f6c1a7b3e"

IMAGES = Images(
    llama_server="slotkeeper/llama-server:0.1.0-cpu",
    balancer="slotkeeper/balancer:0.1.0",
    download="slotkeeper/download:0.1.0",
    by_compute_arch={"7.5": "slotkeeper/llama-server:0.1.0-cuda-sm75"},
    by_vendor={
        "nvidia": "ghcr.io/ggml-org/llama.cpp:server-cuda",
        "amd": "ghcr.io/ggml-org/llama.cpp:server-rocm",
        "intel": "ghcr.io/ggml-org/llama.cpp:server-vulkan",
    },
)

DOWNLOADS = DownloadSettings(
    node_cache_path="/var/lib/slotkeeper/models",
    node_prompts_path="/var/lib/slotkeeper/prompts",
    operator_namespace="slotkeeper-system",
)
"""As the chart sets them with `nodeCache.enabled` and `nodeCache.promptsPath`, in its usual
namespace."""


def raw_server(name: str = "chat", **spec: Any) -> dict[str, Any]:
    """A LlamaServer as written by a user: a model and the given fields of the spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"model": {"url": "https://models.example.com/model.gguf"}, **spec},
    }


def parsed(raw: Mapping[str, Any]) -> LlamaServer:
    """Parse it as returned by the API server: with a namespace, a uid and a generation."""
    metadata = {"namespace": "default", "uid": UID, "generation": 1, **raw["metadata"]}
    return LlamaServer.parse({**raw, "metadata": metadata})


def server(name: str = "chat", **spec: Any) -> LlamaServer:
    """A parsed LlamaServer."""
    return parsed(raw_server(name, **spec))


def golden_cases() -> list[Path]:
    """The folders of the golden cases, each with a server and its golden file."""
    return sorted(file.parent for file in GOLDEN.glob("*/server.yaml"))


def servers_in(file: Path) -> list[dict[str, Any]]:
    """The LlamaServers in a YAML file, which may contain other resources."""
    return [raw for raw in yaml.safe_load_all(file.read_text()) if raw["kind"] == KIND]


def only_server(file: Path) -> dict[str, Any]:
    """The only one of them."""
    [server] = servers_in(file)
    return server
