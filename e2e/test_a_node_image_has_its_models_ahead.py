"""The step of the AWS node image that downloads models, with a real containerd and our image."""

import hashlib
import os
from pathlib import Path

import pytest

from provider.paths import ClusterPaths
from provider.prerequisites import docker_available
from stack import IMAGES, MODELS_NAMESPACE, ROOT, Cluster

pytestmark = pytest.mark.skipif(
    docker_available(), reason="the containerd of a kind cluster is in a container"
)

STEPS = ROOT / "images/aws-image-builder/steps"
MODEL = ROOT / "build/models/quick.gguf"


def test_a_node_image_has_its_models_ahead(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [image] = [image for image in IMAGES if image.name == "download"]
    service = cluster.get("service", "models", namespace=MODELS_NAMESPACE)
    url = f"http://{service['spec']['clusterIP']}/quick.gguf"
    sha256 = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    # The cluster's containerd runs, and no service of this machine must be started.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (programs / "systemctl").chmod(0o755)
    models = tmp_path / "models"
    for name, value in {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CONTAINERD_ADDRESS": str(ClusterPaths(cluster.name).run / "containerd.sock"),
        "DOWNLOAD_IMAGE": f"docker.io/{image.reference}",
        "MODELS": f"chat {url} {sha256}",
        "MODELS_FOLDER": str(models),
    }.items():
        monkeypatch.setenv(name, value)

    printed = _run(cluster, "fetch-models", "verify-models", "fetch-models")

    assert (models / f"chat/sha256-{sha256}.gguf").read_bytes() == MODEL.read_bytes()
    assert "verify-models: all models are there" in printed
    assert printed.count("in place: ") == 2  # downloaded, and found by the second run
    monkeypatch.setenv("MODELS", f"chat {url} {'0' * 64}")
    failed = cluster.attempt("run", "bash", str(STEPS / "fetch-models.sh"))
    assert failed.returncode == 1
    assert "ModelChecksumMismatch" in failed.stderr
    assert f"cannot download {url}, exit status 1" in failed.stderr


def _run(cluster: Cluster, *steps: str) -> str:
    results = [cluster.attempt("run", "bash", str(STEPS / f"{step}.sh")) for step in steps]
    printed = "".join(result.stdout + result.stderr for result in results)
    assert [result.returncode for result in results] == [0] * len(steps), printed
    return printed
