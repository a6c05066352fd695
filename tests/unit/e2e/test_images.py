"""Image names and base images are interpreted as Docker does."""

import pytest

from provider.images import bases, normalize


@pytest.mark.parametrize(
    ("short", "full"),
    [
        pytest.param("debian", "docker.io/library/debian:latest", id="bare"),
        pytest.param("debian:trixie", "docker.io/library/debian:trixie", id="bare with a tag"),
        pytest.param(
            "slotkeeper/download:1", "docker.io/slotkeeper/download:1", id="with an owner"
        ),
        pytest.param("localhost/a:1", "localhost/a:1", id="local"),
        pytest.param("registry:5000/a", "registry:5000/a:latest", id="a port is not a tag"),
        pytest.param("example.com/a/b:1", "example.com/a/b:1", id="with a registry"),
        pytest.param("a/b@sha256:0", "docker.io/a/b@sha256:0", id="by digest"),
    ],
)
def test_a_short_name_is_completed_as_docker_does(short: str, full: str) -> None:
    assert normalize(short) == full


def test_bases_are_the_debian_suites_of_the_from_lines() -> None:
    containerfile = """
        # FROM debian:bookworm-slim
        FROM debian:trixie-slim AS python
        FROM --platform=linux/amd64 docker.io/library/debian:bookworm-slim
        FROM python
        from debian:trixie-slim
        FROM debian:bullseye
        ARG DEBIAN=debian:forky-slim
        FROM ${DEBIAN}
        FROM ${UNSET}
    """

    assert bases(containerfile) == ["trixie", "bookworm", "forky"]
