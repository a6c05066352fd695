"""What a machine lacks is named together with what to do about it."""

import pytest

from provider.prerequisites import docker_answers, missing, missing_packages


def test_a_bare_machine_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    sentences = [lack.sentence for lack in missing("kind")]

    assert sentences == [
        "missing: git. Install it with: apt-get install git",
        "missing: make. Install it with: apt-get install make",
    ]


def test_no_docker_client_means_no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert not docker_answers()


def test_a_package_is_asked_for_once() -> None:
    packages = missing_packages()

    assert packages == sorted(set(packages))
