from pathlib import Path

import pytest

from slotkeeper.bake.errors import BakeError
from slotkeeper.bake.tools import TOOLS, Build

BUILD = Build(
    image="registry.example.com/qwen:1",
    base="llama:cuda",
    platform="linux/amd64",
    files=["model.gguf", "mmproj.gguf"],
    labels={"a": "b c"},
)


def test_buildah_builds_a_layer_that_does_not_depend_on_time() -> None:
    tool = TOOLS["buildah"]

    assert tool.build(BUILD, Path("/c/file"), Path("/cache")) == [
        *("buildah", "build", "--layers", "--timestamp", "0", "--platform", "linux/amd64"),
        *("--annotation", "a=b c"),
        *("--file", "/c/file", "--tag", "registry.example.com/qwen:1", "/cache"),
    ]
    assert tool.containerfile(BUILD) == (
        'FROM llama:cuda\nCOPY --chmod=0444 model.gguf mmproj.gguf /models/\nLABEL a="b c"\n'
    )


def test_docker_builds_a_layer_that_does_not_depend_on_the_base() -> None:
    tool = TOOLS["docker"]

    assert tool.build(BUILD, Path("/c/file"), Path("/cache")) == [
        *("docker", "build", "--build-arg", "SOURCE_DATE_EPOCH=0", "--platform", "linux/amd64"),
        *("--file", "/c/file", "--tag", "registry.example.com/qwen:1", "/cache"),
    ]
    assert "COPY --link --chmod=0444 model.gguf mmproj.gguf /models/\n" in tool.containerfile(BUILD)


def test_podman_has_the_arguments_of_buildah() -> None:
    podman, buildah = TOOLS["podman"], TOOLS["buildah"]
    place = (Path("/c/file"), Path("/cache"))

    assert podman.build(BUILD, *place)[1:] == buildah.build(BUILD, *place)[1:]
    assert podman.push("i", Path("/d"))[1:] == buildah.push("i", Path("/d"))[1:]


@pytest.mark.parametrize(
    ("name", "output", "folder"),
    [
        ("buildah", '{"store": {"GraphRoot": "/var/lib/containers"}}', "/var/lib/containers"),
        ("podman", '{"store": {"graphRoot": "/home/a/containers"}}', "/home/a/containers"),
        ("docker", "/var/lib/docker\n", "/var/lib/docker"),
        ("docker", "C:\\ProgramData\\docker\n", None),
        ("podman", "not JSON", None),
        ("podman", "{}", None),
    ],
)
def test_the_folder_of_the_images_is_read_from_the_tools_information(
    name: str, output: str, folder: str | None
) -> None:
    assert TOOLS[name].storage(output) == (Path(folder) if folder else None)


def test_the_digest_is_that_of_the_pushed_manifest(tmp_path: Path) -> None:
    digest = "sha256:" + "e" * 64
    printed = f"5f70bf18a086: Pushed\n1: digest: {digest} size: 1234"
    written = tmp_path / "digest"
    written.write_text(digest)

    assert TOOLS["docker"].digest(printed, tmp_path / "none") == digest
    assert TOOLS["buildah"].digest("Copying blob sha256:" + "f" * 64, written) == digest
    with pytest.raises(BakeError, match="reported no digest; the image is pushed"):
        TOOLS["docker"].digest("", tmp_path / "none")
