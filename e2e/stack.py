"""Brings up everything that the demo and the tests need: a cluster, images, the operator, models.

    python e2e/stack.py --name test

Steps without changes are skipped, so a second run takes seconds.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from provider.constants import SERVICE_RANGE

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_NAMESPACE = "slotkeeper-system"
MODELS_NAMESPACE = "slotkeeper-demo"


@dataclass(frozen=True)
class Image:
    """One of our images; `sources` are the paths it is built from, relative to the root."""

    name: str
    sources: tuple[str, ...]
    chart_value: str | None = None
    arguments: tuple[str, ...] = ()
    """NAME=VALUE of build arguments."""

    @property
    def containerfile(self) -> str:
        """Path of its Containerfile, relative to the root."""
        return f"images/{self.name}/Containerfile"

    @cached_property
    def reference(self) -> str:
        """Name and tag. The tag is a hash of the sources, so that each change causes a rollout."""
        digest = hashlib.sha256("\0".join(self.arguments).encode())
        for file in _files((self.containerfile, *self.sources)):
            digest.update(f"{file.relative_to(ROOT)}\0".encode())
            digest.update(file.read_bytes())
        return f"slotkeeper/{self.name}:{digest.hexdigest()[:12]}"

    def build(self, cluster: "Cluster") -> None:
        """Build it. Raises CalledProcessError."""
        flags = (part for argument in self.arguments for part in ("--build-arg", argument))
        cluster.call("build", self.reference, self.containerfile, ".", *flags)


PYTHON_SOURCES = ("images/slotkeeper", "operator/slotkeeper")
LLAMA_SERVER = Image(
    "llama-server",
    (
        "images/llama-server",
        "requirements/llama-server.txt",
        "requirements/llama-server-cuda.txt",
    ),
    "llamaServer",
    # Compiled for CPUs with AVX2 only, to save time.
    ("BACKEND=cpu", "CPU_VARIANTS=OFF"),
)
IMAGES = (
    Image("operator", (*PYTHON_SOURCES, "requirements/operator.txt"), "operator"),
    Image("balancer", (*PYTHON_SOURCES, "requirements/balancer.txt"), "balancer"),
    Image("download", (*PYTHON_SOURCES, "requirements/download.txt"), "download"),
    LLAMA_SERVER,
)
MODELS_IMAGE = Image("demo-models", ("images/demo-models", "build/models"))

MODELS = {
    # 0.7 MB, thousands of tokens a second: for tests that need short requests.
    "quick.gguf": ("--layers", "2", "--width", "64"),
    "quick-lora.gguf": ("--layers", "2", "--width", "64", "--lora-rank", "4"),
    # The same in three files.
    "split.gguf": ("--layers", "2", "--width", "64", "--tensors-per-file", "8"),
    # 29 MB, some hundreds of tokens a second on one core: for requests that take seconds.
    "tiny.gguf": ("--layers", "4", "--width", "384"),
}


class Cluster:
    """The cluster `name`, controlled with `e2e/cluster`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._command = (str(ROOT / "e2e/cluster"), "--name", name)

    def call(self, *arguments: str) -> None:
        """Run `e2e/cluster ARGUMENTS` without capturing output. Raises CalledProcessError."""
        subprocess.run([*self._command, *arguments], check=True, cwd=ROOT)

    def read(self, *arguments: str, stdin: str | None = None) -> str:
        """Run `e2e/cluster ARGUMENTS`; return its output. Raises RuntimeError with its stderr."""
        return self.attempt(*arguments, stdin=stdin, check=True).stdout

    def attempt(
        self, *arguments: str, stdin: str | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run `e2e/cluster ARGUMENTS`; return the completed process. With `check`, raises
        RuntimeError if it fails."""
        result = subprocess.run(
            [*self._command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            cwd=ROOT,
        )
        if check and result.returncode:
            message = f"{' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}"
            raise RuntimeError(message)
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `e2e/cluster ARGUMENTS`; the caller reads its output and terminates it."""
        return subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run `kubectl ARGUMENTS`; return its output. Raises RuntimeError with its stderr."""
        return self.read("kubectl", *arguments, stdin=stdin)

    def apply(self, *manifests: dict[str, Any], namespace: str = "default") -> None:
        """Apply the manifests."""
        listed = {"apiVersion": "v1", "kind": "List", "items": manifests}
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(listed))

    def get(self, *arguments: str, namespace: str = "default") -> dict[str, Any]:
        """Return the JSON of `kubectl get ARGUMENTS`."""
        tree: dict[str, Any] = json.loads(
            self.kubectl("-n", namespace, "get", *arguments, "-o", "json")
        )
        return tree


def up(cluster: Cluster, values: Path | None = None) -> None:
    """Bring up the cluster; install our images, the operator and the model server on it."""
    cluster.call("up")
    _write_models()
    for image in (*IMAGES, MODELS_IMAGE):
        image.build(cluster)
    cluster.call("load", *(image.reference for image in (*IMAGES, MODELS_IMAGE)))
    flags = ("--values", str(values)) if values else ()
    install_operator(cluster, "slotkeeper", SYSTEM_NAMESPACE, *flags)
    _serve_models(cluster)


def install_operator(cluster: Cluster, release: str, namespace: str, *flags: str) -> None:
    """Install or upgrade the chart with our images and these additional Helm flags."""
    cluster.call(
        *("helm", "upgrade", "--install", release, "charts/slotkeeper"),
        *("--namespace", namespace, "--create-namespace", "--wait", "--timeout", "3m"),
        # The model server is in a namespace of its own.
        *("--set", f"modelDownloads.allowedAddressRanges={{{SERVICE_RANGE}}}"),
        *flags,
        *_image_values(),
    )


def service_at(name: str, address: str, port: int) -> tuple[dict[str, Any], ...]:
    """Return a Service without pods, and its EndpointSlice with one IPv4 address."""
    return (
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"clusterIP": "None", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": [{"port": port}],
        },
    )


def restricted_pod(container: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the spec of a pod with one container that passes Pod Security's `restricted`."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                **container,
            }
        ],
        **fields,
    }


CHAT = (sys.executable, str(ROOT / "e2e/chat.py"))
"""The client's command line, to be run where a server's address is reachable."""


def image_for_7_5() -> str:
    """Return the image of replicas for GPUs of compute capability 7.5."""
    return f"docker.io/{LLAMA_SERVER.reference}"


def chat(cluster: Cluster, url: str, *arguments: str) -> list[dict[str, Any]]:
    """Run e2e/chat.py; return the result of each request."""
    return [json.loads(line) for line in cluster.read("run", *CHAT, url, *arguments).splitlines()]


def _write_models() -> None:
    # The script's own text is part of the recipe: a changed script writes the models again.
    script = ROOT / "images/demo-models/write_gguf.py"
    folder = ROOT / "build/models"
    recipe = json.dumps(MODELS) + hashlib.sha256(script.read_bytes()).hexdigest()
    written = ROOT / "build/models.recipe"
    if written.exists() and written.read_text() == recipe:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in MODELS.items():
        subprocess.run([sys.executable, str(script), str(folder / name), *size], check=True)
    written.write_text(recipe)


def _image_values() -> Iterator[str]:
    for image in IMAGES:
        repository, _, tag = image.reference.partition(":")
        yield from ("--set", f"images.{image.chart_value}.repository={repository}")
        yield from ("--set-string", f"images.{image.chart_value}.tag={tag}")
    # For the fake GPUs, and without a pull from outside of the cluster.
    yield from ("--set", f"images.llamaServerByVendor.nvidia={LLAMA_SERVER.reference}")
    # The same image under its longer name, so that tests can distinguish the two.
    yield from ("--set", f"images.llamaServerByComputeArch.sm_75={image_for_7_5()}")


def _serve_models(cluster: Cluster) -> None:
    labels = {"app.kubernetes.io/name": "models"}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": MODELS_NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
    )
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "models", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": restricted_pod(
                        {
                            "name": "nginx",
                            "image": MODELS_IMAGE.reference,
                            "ports": [{"containerPort": 8080}],
                            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                        }
                    ),
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "models", "labels": labels},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        namespace=MODELS_NAMESPACE,
    )
    rollout = ("rollout", "status", "deployment/models", "--timeout", "120s")
    cluster.call("kubectl", "-n", MODELS_NAMESPACE, *rollout)


def _files(sources: Iterable[str]) -> Iterator[Path]:
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.is_file())
            yield from sorted(file for file in inside if "__pycache__" not in file.parts)
        else:
            yield path


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and bring everything up."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True, help="name of the cluster")
    parser.add_argument("--values", type=Path, help="values file for the chart")
    options = parser.parse_args(arguments)
    up(Cluster(options.name), options.values)


if __name__ == "__main__":
    main()
