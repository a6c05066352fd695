"""Runs the operator from the checkout against the current kubeconfig: `make run`.

It replaces an operator that is installed in the cluster: it uses that Deployment's arguments and
Lease, so that only one of the two is the leader. Without one it uses the images of the chart's
default values, and a Lease in namespace `default`. Arguments given here are appended and override
these. See e2e/README.md for the required permissions.
"""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

from slotkeeper.api.crd import crd
from slotkeeper.api.definitions import DEFINITIONS

CHART = Path(__file__).resolve().parent.parent / "charts/slotkeeper"
LABELS = "app.kubernetes.io/name=slotkeeper,app.kubernetes.io/component=operator"
LOCAL_ADDRESSES = ("--health=127.0.0.1:8081", "--metrics=127.0.0.1:8080")
ESTABLISHED_TIMEOUT = 30.0
"""Seconds until a new CRD must be established."""


@dataclass(frozen=True)
class InstalledOperator:
    """An operator's Deployment in the cluster."""

    namespace: str
    name: str
    arguments: tuple[str, ...]
    replicas: int


def main(argv: Sequence[str]) -> int:
    """Prepare the cluster, print what is done, then replace this process by the operator."""
    _load_config()
    try:
        for definition in DEFINITIONS:
            _ensure_crd(crd(definition))
        installed = _installed_operator()
    except ApiException as error:
        raise SystemExit(f"run: {error.status} {error.reason}: {error.body}") from error
    except HTTPError as error:
        raise SystemExit(f"run: cannot reach the API server: {error}") from error
    arguments = [*operator_arguments(installed), *LOCAL_ADDRESSES, *argv]
    if installed:
        name = f"{installed.namespace}/{installed.name}"
        _print(f"using the arguments and the Lease of Deployment {name}")
        if installed.replicas:
            scale = f"kubectl -n {installed.namespace} scale deployment/{installed.name}"
            _print(f"standby while that Deployment has pods; stop it with: {scale} --replicas=0")
    else:
        _print("no operator is installed; using the images of the chart's default values")
    command = [sys.executable, "-m", "slotkeeper", "operator", *arguments]
    _print(shlex.join(["slotkeeper", *command[3:]]))
    sys.stdout.flush()
    os.execv(command[0], command)


def chart_arguments() -> list[str]:
    """Return the image flags that the chart renders from its default values."""
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    tags = {"llamaServer": f"{version}-cpu", "balancer": version, "download": version}
    flags = {"llamaServer": "llama-server", "balancer": "balancer", "download": "download"}
    own = [f"--{flags[key]}-image={images[key]['repository']}:{tag}" for key, tag in tags.items()]
    vendors = images["llamaServerByVendor"].items()
    return [*own, *(f"--llama-server-image-for-vendor={key}={image}" for key, image in vendors)]


def operator_arguments(installed: InstalledOperator | None) -> list[str]:
    """Return the arguments of an installed operator, or the defaults without one."""
    if installed is None:
        return [*chart_arguments(), "--lease-namespace=default"]
    own = [each for each in installed.arguments if not each.startswith(("--health=", "--metrics="))]
    # An operator of one namespace has its Lease there, otherwise it is in the operator's own one.
    if any(each.startswith(("--namespace=", "--lease-namespace=")) for each in own):
        return own
    return [*own, f"--lease-namespace={installed.namespace}"]


def _load_config() -> None:
    try:
        config.load_kube_config()
    except config.ConfigException as error:
        raise SystemExit(f"run: no usable kubeconfig: {error}") from error
    _, context = config.list_kube_config_contexts()
    _print(f"kubeconfig context: {context['name']}")


def _ensure_crd(manifest: Any) -> None:
    name = manifest["metadata"]["name"]
    api = client.ApiextensionsV1Api()
    if _find(api, name):
        update = "kubectl apply --server-side -f crds/"
        _print(f"CRD {name} exists; to update it to that of the checkout: {update}")
        return
    api.create_custom_resource_definition(manifest)
    deadline = time.monotonic() + ESTABLISHED_TIMEOUT
    while not _is_established(_find(api, name)):
        if time.monotonic() > deadline:
            raise SystemExit(f"run: CRD {name} is not established")
        time.sleep(0.1)
    _print(f"CRD {name} created")


def _find(api: Any, name: str) -> Any:
    try:
        return api.read_custom_resource_definition(name)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _is_established(found: Any) -> bool:
    conditions = (found.status.conditions if found else None) or []
    return any(each.type == "Established" and each.status == "True" for each in conditions)


def _installed_operator() -> InstalledOperator | None:
    deployments = client.AppsV1Api().list_deployment_for_all_namespaces(label_selector=LABELS).items
    if not deployments:
        return None
    [first, *_] = deployments
    [container, *_] = first.spec.template.spec.containers
    return InstalledOperator(
        first.metadata.namespace, first.metadata.name, tuple(container.args), first.spec.replicas
    )


def _print(text: str) -> None:
    print(f"run: {text}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
