"""Real volumes that are too small or cannot be written, in a mount namespace of their own."""

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_host import ModelHost, chunked
from ranged_model import RangedModel, large_model

MIB = 1024**2
BODY = large_model(6 * MIB)
SHA256 = hashlib.sha256(BODY).hexdigest()

Run = Callable[..., dict[str, object]]


@pytest.fixture
def run(host: ModelHost, tmp_path: Path) -> Run:
    """Returns what runs shell commands with a volume of 4 MiB, and returns the last report."""
    volume, log = tmp_path / "volume", tmp_path / "termination-log"
    volume.mkdir()
    log.touch()
    command = (
        *(sys.executable, "-m", "slotkeeper", "download", "--tries", "1"),
        *("--termination-log", str(log), "--model", host.url, "--sha256", SHA256),
        *("--to", str(volume / "model.gguf")),
    )

    def run(*steps: str) -> dict[str, object]:
        script = f"""
        set -e
        volume={shlex.quote(str(volume))}
        download() {{ {shlex.join(command)}; }}
        mount -t tmpfs -o size=4m volume "$volume"
        {"; ".join(steps)}
        """
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and "unshare" in done.stderr:
            pytest.skip(f"no mount namespace: {done.stderr}")
        assert done.returncode == 0, done.stderr
        report: dict[str, object] = json.loads(log.read_text())
        return report

    return run


def test_a_volume_that_is_too_small_is_noticed_before_the_weights(
    host: ModelHost, run: Run
) -> None:
    host.respond_with(RangedModel(BODY))

    report = run("! download", "! test -s $volume/model.gguf.part", "! test -e $volume/model.gguf")

    assert report["reason"] == "InsufficientStorage"


def test_a_volume_that_fills_half_way_is_reported_and_continued_when_it_is_larger(
    host: ModelHost, run: Run
) -> None:
    # Its length is not announced.
    host.respond_with(chunked(BODY))
    report = run("! download", "! test -e $volume/model.gguf")
    assert report["reason"] == "InsufficientStorage"
    assert "No space left on device" in str(report["message"])

    host.respond_with(chunked(BODY), RangedModel(BODY))
    report = run(
        *("! download", "mount -o remount,size=16m $volume", "download"),
        f"echo {SHA256} $volume/model.gguf | sha256sum --check --quiet",
    )
    assert report["sha256"] == SHA256


def test_a_volume_that_cannot_be_written_but_has_the_model_is_used(
    host: ModelHost, run: Run
) -> None:
    host.respond_with(RangedModel(BODY))

    report = run(
        *("mount -o remount,size=16m $volume", "download"),
        *("mount -o remount,ro $volume", "download"),
    )

    assert report["sha256"] == SHA256
    assert len(host.paths) <= 4


def test_a_volume_that_cannot_be_written_and_is_empty_is_reported(
    host: ModelHost, run: Run
) -> None:
    host.respond_with(RangedModel(BODY))

    report = run("mount -o remount,ro $volume", "! download")

    assert report["reason"] == "StorageError"
    assert "Read-only file system" in str(report["message"])
