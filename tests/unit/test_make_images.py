"""`make images` with a container tool that only prints its arguments."""

import subprocess
from pathlib import Path

import slotkeeper
from chart import values

ROOT = Path(__file__).resolve().parents[2]


def make_images(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("make", "--no-print-directory", "images", "CONTAINER_TOOL=echo tool:", *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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


def test_a_failed_build_ends_it() -> None:
    result = make_images("REGISTRY=registry.example.com", "CONTAINER_TOOL=false")

    assert result.returncode != 0
    assert "to install" not in result.stdout


def test_without_a_registry_the_usage_is_printed() -> None:
    result = make_images()

    assert result.returncode != 0
    assert "usage: make images REGISTRY=" in result.stderr
