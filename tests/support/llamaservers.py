"""LlamaServers for tests: as raw trees, as parsed, and the golden ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from slotkeeper.api.group import API_VERSION, KIND
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = ROOT / "examples"

UID = "6f1e0c1c-5a0e-4b5e-9a5c-0d2f6c1a7b3e"

IMAGES = Images(
    llama_server="slotkeeper/llama-server:0.1.0-cpu",
    balancer="slotkeeper/balancer:0.1.0",
    download="slotkeeper/download:0.1.0",
)


def raw_server(name: str = "chat", **spec: Any) -> dict[str, Any]:
    """A LlamaServer as a user writes it: a model, and what `spec` adds in the API's own words."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"model": {"url": "https://models.example.com/model.gguf"}, **spec},
    }


def parsed(raw: Mapping[str, Any]) -> LlamaServer:
    """The same once the API server has it: with a namespace, a uid and a generation."""
    metadata = {"namespace": "default", "uid": UID, "generation": 1, **raw["metadata"]}
    return LlamaServer.parse({**raw, "metadata": metadata})


def server(name: str = "chat", **spec: Any) -> LlamaServer:
    """A parsed LlamaServer."""
    return parsed(raw_server(name, **spec))


def golden_cases() -> list[Path]:
    """The folders that hold a server and the manifests that it has to give."""
    return sorted(file.parent for file in GOLDEN.glob("*/server.yaml"))


def only_server(file: Path) -> dict[str, Any]:
    """The LlamaServer in a YAML file, which may hold other resources that belong to it."""
    [found] = [raw for raw in yaml.safe_load_all(file.read_text()) if raw["kind"] == KIND]
    return dict(found)


def golden_text(case: Path) -> str:
    """The manifests of a golden server as one YAML file."""
    golden = parsed(only_server(case / "server.yaml"))
    scaling = golden.spec.autoscaling
    replicas = golden.spec.replicas if scaling is None else scaling.min_replicas
    return yaml.dump_all(
        manifests(golden, replicas, IMAGES), Dumper=_Dumper, sort_keys=False, width=100
    )


class _Dumper(yaml.SafeDumper):
    """Writes scripts line by line."""

    @override
    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def write_goldens() -> None:
    """Write each golden's manifests as they are now, for `git diff` to show."""
    for case in golden_cases():
        (case / "manifests.yaml").write_text(golden_text(case))


if __name__ == "__main__":
    write_goldens()
