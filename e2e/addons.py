"""Installs the programs of another project, with its own manifests, for the duration of a test."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from provider import builds
from provider.progress import print_progress
from stack import ROOT, Cluster


@dataclass(frozen=True)
class Addon:
    """What a module under e2e/tools installs; images/NAME makes one image of its programs."""

    name: str
    namespace: str
    manifests: str
    """Folder of the kustomization to install, in the module's package."""
    deployments: tuple[str, ...]
    api_services: tuple[str, ...]


@contextmanager
def installed(cluster: Cluster, addon: Addon) -> Iterator[None]:
    """Install the addon; remove it completely after the `with`."""
    programs = builds.ensure(builds.modules()[addon.name])
    image = f"slotkeeper/{programs.name.replace('-', ':', 1)}"
    cluster.call("build", image, str(ROOT / f"images/{addon.name}/Containerfile"), str(programs))
    cluster.call("load", image)
    apis = tuple(f"apiservice/{name}" for name in addon.api_services)
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder)
        text = yaml.safe_dump(_overlay(overlay, programs / addon.manifests, image))
        (overlay / "kustomization.yaml").write_text(text)
        try:
            # Server-side: client-side apply stores the manifest in an annotation, and the largest
            # CRDs exceed an annotation's limit.
            cluster.kubectl("apply", "--server-side", "--kustomize", folder)
            print_progress(f"waiting for {addon.name}")
            for subject in (*(f"deployment/{name}" for name in addon.deployments), *apis):
                wait = ("--for=condition=Available", "--timeout=300s", subject)
                cluster.kubectl("-n", addon.namespace, "wait", *wait)
            yield
        finally:
            # First: no namespace can be deleted while an aggregated API is unavailable.
            cluster.kubectl("delete", "--ignore-not-found", *apis)
            cluster.kubectl("delete", "--ignore-not-found", "--wait", "--kustomize", folder)


def _overlay(folder: Path, manifests: Path, image: str) -> dict[str, object]:
    """Return a kustomization of these manifests with the image built here."""
    container = "/spec/template/spec/containers/0"
    patch = [
        {"op": "replace", "path": f"{container}/image", "value": f"docker.io/{image}"},
        {"op": "replace", "path": f"{container}/imagePullPolicy", "value": "Never"},
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(manifests, folder.resolve())],
        "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(patch)}],
    }
