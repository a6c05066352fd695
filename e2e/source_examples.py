"""LlamaServers with a model of each server of model_sources.py, to try out sources of models.

    python e2e/source_examples.py --name slotkeeper

Starts the servers in a cluster that e2e/stack.py has brought up, and leaves them running. Writes
the LlamaServers, with the Secrets and the ConfigMap that they need, to build/sources.yaml.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from model_sources import (
    NAMESPACE,
    TRUSTING,
    ObjectStore,
    Protected,
    authority_config_map,
    prepare,
    secret,
)
from servers import Spec, spec
from stack import ROOT, Cluster

REPOSITORY = "org/Model-GGUF"
"""Of the hub."""
STORE, REGISTRY, HUB, WEB = "store", "registry", "hub", "web"
"""Names of the Secrets."""
OUTPUT = ROOT / "build/sources.yaml"


class Sources(Protocol):
    """The servers. See ModelSources."""

    @property
    def authority(self) -> str: ...
    @property
    def object_store(self) -> ObjectStore: ...
    @property
    def registry(self) -> Protected: ...
    @property
    def hub(self) -> Protected: ...
    @property
    def web(self) -> Protected: ...


def in_bucket(store: ObjectStore, key: str = "quick.gguf", **model: Any) -> Spec:
    """Return the spec of a server with an object as its model."""
    s3 = {"endpoint": store.url, "pathStyle": True, "secretRef": {"name": STORE}}
    return spec() | {"model": {"url": f"s3://models/{key}", "s3": s3, **model}}


def in_registry(registry: Protected, tag: str) -> Spec:
    """Return the spec of a server with an artifact as its model."""
    model = {"url": f"{registry.url}/models/quick:{tag}", "download": TRUSTING}
    return spec() | {"model": {**model, "tokenSecretRef": {"name": REGISTRY}}}


def on_hub(hub: Protected, reference: str) -> Spec:
    """Return the spec of a server with a file of the hub's repository as its model."""
    model = {"url": f"hf://{REPOSITORY}{reference}", "download": {"hubEndpoint": hub.url}}
    token = {"name": HUB, "allowHttp": True}
    return spec() | {"model": {**model, "tokenSecretRef": token}}


def on_web(web: Protected, file: str) -> Spec:
    """Return the spec of a server with a file that requires a token as its model."""
    model = {"url": f"{web.url}/gated/{file}", "download": TRUSTING}
    return spec() | {"model": {**model, "tokenSecretRef": {"name": WEB}}}


def examples(sources: Sources) -> list[dict[str, Any]]:
    """Return a LlamaServer for each source, and before them what they need."""
    servers = {
        "from-bucket": in_bucket(sources.object_store),
        "from-registry": in_registry(sources.registry, "oras"),
        "from-hub": on_hub(sources.hub, ":Q8_0"),
        "from-web": on_web(sources.web, "quick.gguf"),
    }
    return [
        authority_config_map(sources.authority),
        secret(STORE, sources.object_store.entries),
        secret(REGISTRY, sources.registry.entries),
        secret(HUB, sources.hub.entries),
        secret(WEB, sources.web.entries),
        *(_llama_server(name, fields) for name, fields in servers.items()),
    ]


def _llama_server(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "slotkeeper.dev/v1alpha1",
        "kind": "LlamaServer",
        "metadata": {"name": name},
        "spec": fields,
    }


def main(arguments: Sequence[str]) -> None:
    """Start the servers and write the file."""
    options = command_line().parse_args(arguments)
    cluster = Cluster(options.name)
    with tempfile.TemporaryDirectory() as folder:
        found = examples(prepare(cluster, Path(folder) / "keys"))
    OUTPUT.write_text(yaml.safe_dump_all(found, sort_keys=False))
    path = OUTPUT.relative_to(ROOT)
    print(f"""\
The servers run in namespace {NAMESPACE}. {path} has a LlamaServer for each.
    ./e2e/cluster --name {cluster.name} kubectl apply -f {path}
    ./e2e/cluster --name {cluster.name} kubectl get llama
    ./e2e/cluster --name {cluster.name} kubectl delete -f {path}
    ./e2e/cluster --name {cluster.name} kubectl delete namespace {NAMESPACE}""")


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True, help="name of the cluster")
    return parser


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (RuntimeError, subprocess.CalledProcessError) as failure:
        sys.exit(f"source_examples: failed: {failure}")
