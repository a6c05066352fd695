"""The real KEDA, installed with its own manifests while a test needs it."""

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
"""What its manifests call the two programs' images."""


@contextmanager
def keda(cluster: Cluster) -> Iterator[None]:
    """KEDA answers for external metrics inside of the `with`; after it nothing of it is left."""
    programs = builds.ensure(builds.modules()["keda"])
    image = f"slotkeeper/{programs.name.replace('-', ':', 1)}"
    cluster.call("build", image, str(ROOT / "images/keda/Containerfile"), str(programs))
    cluster.call("load", image)
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder)
        text = yaml.safe_dump(_overlay(overlay, programs, image))
        (overlay / "kustomization.yaml").write_text(text)
        try:
            # By the server: its largest CRD is too large for the annotation of the other way.
            cluster.kubectl("apply", "--server-side", "--kustomize", folder)
            print_progress("waiting for KEDA")
            for subject in ("deployment/keda-operator", "deployment/keda-metrics-apiserver", _API):
                wait = ("--for=condition=Available", "--timeout=300s", subject)
                cluster.kubectl("-n", NAMESPACE, "wait", *wait)
            yield
        finally:
            # First, since no namespace ends while an API of the cluster does not answer.
            cluster.kubectl("delete", "--ignore-not-found", _API)
            cluster.kubectl("delete", "--ignore-not-found", "--wait", "--kustomize", folder)


def _overlay(folder: Path, programs: Path, image: str) -> dict[str, object]:
    """Its manifests, with our images of its programs."""
    name, _, tag = f"docker.io/{image}".rpartition(":")
    there = {
        "op": "replace",
        "path": "/spec/template/spec/containers/0/imagePullPolicy",
        "value": "Never",
    }
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(programs / "config/minimal", folder.resolve())],
        "images": [{"name": each, "newName": name, "newTag": tag} for each in _IMAGES],
        "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump([there])}],
    }
