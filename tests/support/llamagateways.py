"""LlamaGateways for tests: raw and parsed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llamaservers import GOLDEN, UID
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.group import API_VERSION, GATEWAY_KIND


def raw_gateway(name: str = "llm", **spec: Any) -> dict[str, Any]:
    """A LlamaGateway as written by a user, with the given fields of the spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": GATEWAY_KIND,
        "metadata": {"name": name},
        "spec": spec,
    }


def parsed_gateway(raw: Mapping[str, Any]) -> LlamaGateway:
    """Parse it as returned by the API server: with a namespace, a uid and a generation."""
    metadata = {"namespace": "default", "uid": UID, "generation": 1, **raw["metadata"]}
    return LlamaGateway.parse({**raw, "metadata": metadata})


def gateway(name: str = "llm", **spec: Any) -> LlamaGateway:
    """A parsed LlamaGateway."""
    return parsed_gateway(raw_gateway(name, **spec))


def gateway_cases() -> list[Path]:
    """The folders of the golden cases, each with a gateway and its golden file."""
    return sorted(file.parent for file in GOLDEN.glob("*/gateway.yaml"))


def only_gateway(file: Path) -> dict[str, Any]:
    """The only LlamaGateway in a YAML file, which may contain other resources."""
    [found] = [raw for raw in yaml.safe_load_all(file.read_text()) if raw["kind"] == GATEWAY_KIND]
    return dict(found)
