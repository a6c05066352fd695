"""Image names and bases mean here what they mean to Docker."""

import pytest

from provider.images import bases, normalised


@pytest.mark.parametrize(
    ("short", "full"),
    [
        pytest.param("debian", "docker.io/library/debian:latest", id="bare"),
        pytest.param("debian:sid", "docker.io/library/debian:sid", id="bare with a tag"),
        pytest.param("slotkeeper/download:1", "docker.io/slotkeeper/download:1", id="of an owner"),
        pytest.param("localhost/a:1", "localhost/a:1", id="local"),
        pytest.param("registry:5000/a", "registry:5000/a:latest", id="a port is no tag"),
        pytest.param("example.com/a/b:1", "example.com/a/b:1", id="of a registry"),
        pytest.param("a/b@sha256:0", "docker.io/a/b@sha256:0", id="by digest"),
    ],
)
def test_a_short_name_is_what_docker_takes_it_for(short: str, full: str) -> None:
    assert normalised(short) == full


def test_bases_are_the_debian_suites_of_the_from_lines() -> None:
    containerfile = """
        # FROM debian:bookworm-slim
        FROM debian:trixie-slim AS python
        FROM --platform=linux/amd64 docker.io/library/debian:sid-slim
        FROM python
        from debian:trixie-slim
        FROM debian:bookworm
    """

    assert bases(containerfile) == ["trixie", "sid"]
