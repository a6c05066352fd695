"""Missing prerequisites are reported with the command that installs them."""

import pytest

from provider.prerequisites import docker_available, missing, missing_packages


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


def test_each_missing_package_is_listed_once() -> None:
    packages = missing_packages()

    assert packages == sorted(set(packages))
