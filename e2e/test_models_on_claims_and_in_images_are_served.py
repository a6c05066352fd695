"""A model that is on a claim, or in llama-server's image, is served from there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Server, spec
from stack import LLAMA_SERVER, MODELS_IMAGE, ROOT, restricted_pod
from volumes import node_claim

CLAIM = "models"
CONTAINERFILE = """\
ARG BASE
FROM ${BASE}
COPY quick.gguf /weights/quick.gguf
"""


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """Name of a claim with the models of the tests."""
    copy = {
        "name": "copy",
        "image": MODELS_IMAGE.reference,
        "command": ["cp", "-r", "/models", "/claim/team"],
        "volumeMounts": [{"name": "claim", "mountPath": "/claim"}],
    }
    volume = {"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}}
    pod = restricted_pod(copy, restartPolicy="Never", volumes=[volume])
    with node_claim(server, CLAIM, tmp_path):
        server.cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy"}, "spec": pod},
            namespace=server.namespace,
        )
        phase = "--for=jsonpath={.status.phase}=Succeeded"
        server.kubectl("wait", phase, "pod/copy", "--timeout=60s")
        yield CLAIM


def test_a_split_model_on_a_claim_is_served_from_there(server: Server, claim: str) -> None:
    file = "split-00001-of-00003.gguf"
    server.ready(spec(f"pvc://{claim}/team/{file}"))

    [result] = server.chat()
    assert result["completed"], result
    assert server.get()["status"]["model"]["file"] == file
    write = ("touch", f"/model-claims/{claim}/team/{file}")
    with pytest.raises(RuntimeError, match="Read-only file system"):
        server.kubectl("exec", f"deployment/{server.name}-replicas", "--", *write)


def test_a_file_that_a_claim_lacks_is_reported(server: Server, claim: str) -> None:
    server.apply(spec(f"pvc://{claim}/team/other.gguf"))

    assert "other.gguf" in server.wait_for_reason("Ready", "ModelNotFound")


@pytest.fixture
def image(server: Server, tmp_path: Path) -> str:
    """Name of an image of llama-server with a model in it."""
    name = f"slotkeeper/llama-server-with-model:{LLAMA_SERVER.reference.rpartition(':')[2]}"
    containerfile = tmp_path / "Containerfile"
    containerfile.write_text(CONTAINERFILE)
    base = f"BASE=docker.io/{LLAMA_SERVER.reference}"
    folder = str(ROOT / "build/models")
    server.cluster.call("build", name, str(containerfile), folder, "--build-arg", base)
    server.cluster.call("load", name)
    return name


def test_a_model_in_the_image_is_served_without_an_init_container(
    server: Server, image: str
) -> None:
    server.ready(spec("image:///weights/quick.gguf", image=image))

    [result] = server.chat()
    assert result["completed"], result
    [replica] = server.pods("replica")
    assert "initContainers" not in replica["spec"]
