"""`make images` and `make image-llama-server` with container tools that only print or record their
arguments."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import slotkeeper
from chart import values
from fake_tools import FakeTools
from llama_tests import IMAGE as TESTS

ROOT = Path(__file__).resolve().parents[2]


REGISTRY = "REGISTRY=registry.example.com"
ARGUMENT = re.compile(r"--build-arg (\S+?)=(\S*)")


def make(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("make", "--no-print-directory", target, "CONTAINER_TOOL=echo tool:", *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def make_images(*arguments: str) -> subprocess.CompletedProcess[str]:
    return make("images", *arguments)


def make_llama_server(*arguments: str) -> tuple[str, dict[str, str]]:
    """Return the tag of the built image, and its build arguments."""
    [line] = calls(make("image-llama-server", REGISTRY, *arguments).stdout, "build")
    return line.split()[-2].rpartition(":")[2], dict(ARGUMENT.findall(line))


def calls(output: str, verb: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f"tool: {verb}")]


def test_each_image_of_the_chart_is_built_and_pushed_under_its_default_name() -> None:
    result = make_images("REGISTRY=registry.example.com/team", "PUSH=1")

    images = values()["images"]
    version = slotkeeper.__version__
    names = [
        f"registry.example.com/team/{images[image]['repository']}:{version}{suffix}"
        for image, suffix in (
            ("operator", ""),
            ("balancer", ""),
            ("download", ""),
            ("llamaServer", "-cpu"),
        )
    ]
    assert [line.split()[-2] for line in calls(result.stdout, "build")] == names
    assert [line.split()[-1] for line in calls(result.stdout, "push")] == names
    for line in calls(result.stdout, "build"):
        assert (ROOT / line.split()[line.split().index("--file") + 1]).exists()
    assert "images.registry=registry.example.com/team" in result.stdout


def test_images_are_pushed_only_on_request() -> None:
    assert calls(make_images("REGISTRY=registry.example.com").stdout, "push") == []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    """Container tools: none of this machine is on the PATH."""
    tools = FakeTools(tmp_path)
    (tmp_path / "bin").mkdir()
    tools.fail()
    for program in ("make", "sed"):
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CONTAINER_TOOL", raising=False)
    return tools


def make_images_with_a_tool_of_the_path() -> subprocess.CompletedProcess[str]:
    command = ("make", "--no-print-directory", "images", "REGISTRY=registry.example.com")
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("installed", "daemon", "used"),
    [
        (("docker", "podman", "buildah"), True, "docker"),
        (("docker", "podman", "buildah"), False, "podman"),
        (("docker", "buildah"), False, "buildah"),
        (("buildah",), False, "buildah"),
    ],
)
def test_docker_is_used_only_if_its_daemon_responds(
    tools: FakeTools, installed: tuple[str, ...], daemon: bool, used: str
) -> None:
    tools.install(*installed)
    if not daemon:
        tools.fail(version="Cannot connect to the Docker daemon")

    result = make_images_with_a_tool_of_the_path()

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert {tool for tool, verb, *_ in tools.calls if verb == "build"} == {used}


def test_without_a_usable_tool_the_error_says_what_is_missing(tools: FakeTools) -> None:
    tools.install("docker")
    tools.fail(version="Cannot connect to the Docker daemon")

    result = make_images_with_a_tool_of_the_path()

    assert result.returncode != 0
    assert "missing: docker with a running daemon, podman or buildah" in result.stderr


def test_a_failed_build_ends_it() -> None:
    result = make_images("REGISTRY=registry.example.com", "CONTAINER_TOOL=false")

    assert result.returncode != 0
    assert "to install" not in result.stdout


def test_without_a_registry_the_usage_is_printed() -> None:
    result = make_images()

    assert result.returncode != 0
    assert "usage: make images REGISTRY=" in result.stderr


def test_the_base_image_may_be_pinned_by_digest() -> None:
    result = make_images(REGISTRY, "DEBIAN_TRIXIE=debian@sha256:1")

    builds = calls(result.stdout, "build")
    assert len(builds) == 4
    for line in builds:
        assert "--build-arg DEBIAN_TRIXIE=debian@sha256:1" in line


def test_every_base_image_can_be_replaced_by_a_build_argument() -> None:
    makefile = (ROOT / "Makefile").read_text()

    for containerfile in set((ROOT / "images").glob("*/Containerfile")) - {
        ROOT / TESTS.containerfile
    }:
        text = containerfile.read_text()
        bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        stages = {*re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE), "scratch", "${BACKEND}"}
        for base in {*bases} - stages:
            argument = re.fullmatch(r"\$\{(\w+)\}", base)
            assert argument, containerfile
            assert f"ARG {argument[1]}=debian:" in text
            assert f"--build-arg {argument[1]}=" in makefile


def test_no_image_accepts_package_indexes_of_any_age() -> None:
    for containerfile in (ROOT / "images").glob("*/Containerfile"):
        assert "Check-Valid-Until" not in containerfile.read_text()


@pytest.mark.parametrize(
    ("arguments", "tag", "built"),
    [
        pytest.param((), "cpu", {"BACKEND": "cpu"}, id="default"),
        pytest.param(
            ("BACKEND=cuda",), "cuda-sm75", {"BACKEND": "cuda", "CUDA_ARCH": "75"}, id="cuda"
        ),
        pytest.param(("BACKEND=vulkan",), "vulkan", {"BACKEND": "vulkan"}, id="vulkan"),
        pytest.param(
            ("BACKEND=rocm", "ROCM_ARCH=gfx906 gfx942", "ROCM=rocm:1", "DEBIAN_TRIXIE=debian:1"),
            "rocm",
            {"BACKEND": "rocm", "ROCM_ARCH": "gfx906,gfx942", "DEBIAN_TRIXIE": "rocm:1"},
            id="rocm: on the image with its libraries",
        ),
        pytest.param(
            ("LLAMA_CPP_BUILD=b12405", "LLAMA_CPP_COMMIT=abc"),
            "cpu",
            {"BACKEND": "cpu", "LLAMA_CPP_BUILD": "b12405", "LLAMA_CPP_COMMIT": "abc"},
            id="another build of llama.cpp",
        ),
    ],
)
def test_llama_servers_image_is_built_for_a_backend(
    arguments: tuple[str, ...], tag: str, built: dict[str, str]
) -> None:
    expected = (f"{slotkeeper.__version__}-{tag}", built)

    assert make_llama_server(*arguments) == expected


@pytest.mark.parametrize(
    ("argument", "archs"),
    [
        ("CUDA_ARCH=86", "86"),
        ("CUDA_ARCH=8.6", "86"),
        ("CUDA_ARCH=sm_86", "86"),
        ("CUDA_ARCH=compute_86", "86"),
        ("CUDA_DOCKER_ARCH=compute_86", "86"),
        ("CUDA_DOCKER_ARCH=86", "86"),
        ("CUDA_ARCH=120a", "120a"),
        ("CUDA_ARCH=75 86", "75,86"),
        ("CUDA_ARCH=75;86", "75,86"),
        ("CUDA_ARCH=7.5, 8.6", "75,86"),
    ],
)
def test_cuda_archs_may_be_written_as_in_cmake_and_in_llama_cpp(argument: str, archs: str) -> None:
    tag, built = make_llama_server("BACKEND=cuda", argument)

    assert built["CUDA_ARCH"] == archs
    assert tag.endswith("-cuda-" + "-".join(f"sm{arch}" for arch in archs.split(",")))


def test_an_unknown_backend_is_rejected() -> None:
    result = make("image-llama-server", REGISTRY, "BACKEND=metal")

    assert result.returncode != 0
    assert "BACKEND must be cpu, cuda, vulkan or rocm, not metal" in result.stderr


@pytest.mark.parametrize("value", ["", "T4", "75 T4", "all", "75x", "7", "sm_"])
def test_what_is_no_compute_capability_is_rejected(value: str) -> None:
    result = make("image-llama-server", REGISTRY, "BACKEND=cuda", f"CUDA_ARCH={value}")

    assert result.returncode != 0
    assert calls(result.stdout, "build") == []
    assert "CUDA_ARCH must be compute capabilities, such as 75 for a T4" in result.stderr
    assert f"not '{value}'" in result.stderr


@pytest.mark.parametrize(
    ("value", "arch"), [("70", "70"), ("6.1", "61"), ("75 50", "50"), ("72f", "72f")]
)
def test_what_cuda_13_does_not_compile_for_is_rejected(value: str, arch: str) -> None:
    result = make("image-llama-server", REGISTRY, "BACKEND=cuda", f"CUDA_ARCH={value}")

    assert result.returncode != 0
    assert calls(result.stdout, "build") == []
    assert f"CUDA_ARCH {arch} is below 75, the oldest that CUDA 13 compiles for" in result.stderr
    assert "use an image of CUDA 12" in result.stderr


def test_the_oldest_compute_capability_is_that_of_the_pinned_compiler() -> None:
    pinned = (ROOT / "requirements/llama-server-cuda.txt").read_text()

    assert re.search(r"^nvidia-cuda-nvcc==13\.", pinned, re.MULTILINE)


def test_llama_servers_image_is_pushed_only_on_request() -> None:
    [pushed] = calls(make("image-llama-server", REGISTRY, "PUSH=1").stdout, "push")

    assert calls(make("image-llama-server", REGISTRY).stdout, "push") == []
    assert pushed.split()[-1].endswith(f"/slotkeeper/llama-server:{slotkeeper.__version__}-cpu")
