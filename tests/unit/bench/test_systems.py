from pathlib import Path

import pytest

from bench.balancer.systems import (
    DIRECT,
    PROXIES,
    ProxySetup,
    haproxy_config,
    nginx_config,
    slotkeeper_command,
    slotkeeper_watching,
)
from slotkeeper.balancer.options import parse

SETUP = ProxySetup(
    port=8000, metrics_port=9000, replicas=(8001, 8002), slots=4, folder=Path("/folder")
)


@pytest.mark.parametrize(
    "line",
    [
        "nbthread 1",
        "option http-no-delay",
        "option abortonclose",
        "server r0 127.0.0.1:8001 maxconn 4",
        "server r1 127.0.0.1:8002 maxconn 4",
        "bind 127.0.0.1:8000 backlog 4096",
    ],
)
def test_haproxy_is_limited_to_the_slots_and_sends_without_delay(line: str) -> None:
    assert line in _lines(haproxy_config(SETUP))


@pytest.mark.parametrize(
    "line",
    [
        "least_conn;",
        "server 127.0.0.1:8001;",
        "server 127.0.0.1:8002;",
        "keepalive 8;",
        "proxy_buffering off;",
        "access_log off;",
        "listen 127.0.0.1:8000 backlog=4096;",
    ],
)
def test_nginx_chooses_the_least_busy_and_sends_without_delay(line: str) -> None:
    assert line in _lines(nginx_config(SETUP))


def test_nginx_writes_only_into_its_folder() -> None:
    paths = [line.split()[-1] for line in _lines(nginx_config(SETUP)) if "/" in line]

    assert all(path.startswith(("/folder/", "http://", "{")) for path in paths)


def test_our_command_lines_are_valid() -> None:
    fixed = parse(slotkeeper_command(SETUP, "--no-access-log")[4:])
    watching = parse(slotkeeper_watching(SETUP)[4:])

    assert fixed.replicas == ("127.0.0.1:8001", "127.0.0.1:8002")
    assert watching.endpoints == ("bench", "replicas")
    assert fixed.listen == ("127.0.0.1", 8000)


def test_our_balancer_reads_the_slots_from_the_replicas() -> None:
    assert "--slots" not in slotkeeper_command(SETUP)


def test_each_command_line_contains_the_path_of_its_configuration() -> None:
    for system in PROXIES:
        assert system.command
        for name in system.files(SETUP):
            assert str(SETUP.folder / name) in system.command(SETUP)


def test_direct_has_no_proxy() -> None:
    assert DIRECT.command is None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]
