"""Missing prerequisites are reported with the command that installs them."""

import subprocess
from pathlib import Path

import pytest

from provider.prerequisites import (
    chromium,
    docker_available,
    missing,
    missing_packages,
    service_policy,
)


def test_missing_programs_are_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    messages = [prerequisite.message for prerequisite in missing("kind")]

    assert messages == [
        "missing: git. Install it with: apt-get install git",
        "missing: make. Install it with: apt-get install make",
    ]


def test_without_a_docker_client_docker_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert not docker_available()


def test_an_installed_chromium_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium() is None

    program = tmp_path / "google-chrome"
    program.touch(mode=0o755)
    assert chromium() == str(program)


@pytest.mark.parametrize(
    ("name", "status"),
    [("prometheus", 101), ("prometheus.service", 101), ("nginx", 0), ("nginx.service", 0)],
)
def test_the_policy_denies_only_new_services(name: str, status: int, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(service_policy(["containerd", "prometheus"]))

    result = subprocess.run(["/bin/sh", policy, name, "start"], check=False)

    assert result.returncode == status


def test_each_missing_package_is_listed_once() -> None:
    packages = missing_packages()

    assert packages == sorted(set(packages))
