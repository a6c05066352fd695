"""Installs the real KEDA, with its own manifests, for the duration of a test."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from provider import builds
from provider.progress import print_progress
from stack import ROOT, Cluster

NAMESPACE = "keda"
_API = "apiservice/v1beta1.external.metrics.k8s.io"
_IMAGES = ("ghcr.io/kedacore/keda", "ghcr.io/kedacore/keda-metrics-apiserver")
"""Names of the two programs' images in KEDA's manifests."""


@contextmanager
def keda(cluster: Cluster) -> Iterator[None]:
    """Install KEDA as the external metrics API; remove it completely after the `with`."""
    programs = builds.ensure(builds.modules()["keda"])
    image = f"slotkeeper/{programs.name.replace('-', ':', 1)}"
    cluster.call("build", image, str(ROOT / "images/keda/Containerfile"), str(programs))
    cluster.call("load", image)
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder)
        text = yaml.safe_dump(_overlay(overlay, programs, image))
        (overlay / "kustomization.yaml").write_text(text)
        try:
            # Server-side: client-side apply stores the manifest in an annotation, and KEDA's
            # largest CRD exceeds an annotation's limit.
            cluster.kubectl("apply", "--server-side", "--kustomize", folder)
            print_progress("waiting for KEDA")
            for subject in ("deployment/keda-operator", "deployment/keda-metrics-apiserver", _API):
                wait = ("--for=condition=Available", "--timeout=300s", subject)
                cluster.kubectl("-n", NAMESPACE, "wait", *wait)
            yield
        finally:
            # First: no namespace can be deleted while an aggregated API is unavailable.
            cluster.kubectl("delete", "--ignore-not-found", _API)
            cluster.kubectl("delete", "--ignore-not-found", "--wait", "--kustomize", folder)


def _overlay(folder: Path, programs: Path, image: str) -> dict[str, object]:
    """Return a kustomization of KEDA's manifests with the image built here."""
    name, _, tag = f"docker.io/{image}".rpartition(":")
    never_pull = {
        "op": "replace",
        "path": "/spec/template/spec/containers/0/imagePullPolicy",
        "value": "Never",
    }
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(programs / "config/minimal", folder.resolve())],
        "images": [{"name": each, "newName": name, "newTag": tag} for each in _IMAGES],
        "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump([never_pull])}],
    }
