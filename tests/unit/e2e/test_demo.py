"""`make demo` runs on the cluster that CLUSTER names, and can be interrupted."""

import os
import subprocess
from pathlib import Path

import pytest

from demo import main
from stack import Cluster

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        pytest.param((), "demo", id="not the cluster of the tests"),
        pytest.param(("CLUSTER=other",), "other", id="another one"),
        pytest.param(("CLUSTER=test",), "test", id="that of the tests on request"),
    ],
)
def test_make_passes_the_name_of_the_cluster(arguments: tuple[str, ...], name: str) -> None:
    environment = {key: text for key, text in os.environ.items() if key != "CLUSTER"}

    result = subprocess.run(
        ("make", "--dry-run", "demo", *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )

    assert result.stdout.splitlines()[-1].endswith(f"e2e/demo.py --name {name}")


@pytest.mark.parametrize(
    ("arguments", "name"), [((), "demo"), (("--name", "other"), "other")], ids=["default", "named"]
)
def test_the_demo_runs_on_the_named_cluster(arguments: tuple[str, ...], name: str) -> None:
    used: list[str] = []

    def run(cluster: Cluster) -> int:
        used.append(cluster.name)
        return 0

    assert main(arguments, run) == 0
    assert used == [name]


def test_an_interrupted_demo_tells_how_to_remove_its_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_: Cluster) -> int:
        raise KeyboardInterrupt

    assert main(("--name", "other"), run) == 130
    error = capsys.readouterr().err
    assert "./e2e/cluster --name other down" in error
    assert "Traceback" not in error


def test_a_failed_command_ends_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Cluster) -> int:
        raise RuntimeError("kubectl wait: timed out")

    assert main((), run) == 1
    assert capsys.readouterr().err == "demo: failed: kubectl wait: timed out\n"
