from pathlib import Path

import pytest

from bench.balancer.systems import (
    DIRECT,
    PROXIES,
    Place,
    haproxy_config,
    nginx_config,
    slotkeeper_command,
    slotkeeper_following,
)
from slotkeeper.balancer.options import parse

PLACE = Place(port=8000, metrics_port=9000, replicas=(8001, 8002), slots=4, folder=Path("/there"))


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
def test_haproxy_holds_to_the_slots_and_sends_at_once(line: str) -> None:
    assert line in _lines(haproxy_config(PLACE))


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
def test_nginx_chooses_the_least_busy_and_sends_at_once(line: str) -> None:
    assert line in _lines(nginx_config(PLACE))


def test_nginx_writes_only_into_its_folder() -> None:
    places = [line.split()[-1] for line in _lines(nginx_config(PLACE)) if "/" in line]

    assert all(place.startswith(("/there/", "http://", "{")) for place in places)


def test_our_command_lines_are_valid() -> None:
    fixed = parse(slotkeeper_command(PLACE, "--no-access-log")[4:])
    following = parse(slotkeeper_following(PLACE)[4:])

    assert fixed.replicas == ("127.0.0.1:8001", "127.0.0.1:8002")
    assert following.endpoints == ("bench", "replicas")
    assert fixed.listen == ("127.0.0.1", 8000)


def test_our_slots_are_read_from_the_replicas() -> None:
    assert "--slots" not in slotkeeper_command(PLACE)


def test_each_proxy_is_told_where_its_configuration_is() -> None:
    for system in PROXIES:
        assert system.command
        for name in system.files(PLACE):
            assert str(PLACE.folder / name) in system.command(PLACE)


def test_direct_has_nothing_between() -> None:
    assert DIRECT.command is None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]
