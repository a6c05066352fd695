"""When one connection is enough."""

import pytest

from slotkeeper.download.connection_speed import ConnectionSpeed

MB = 1_000_000


@pytest.mark.parametrize(
    ("received", "fast"),
    [
        pytest.param([(0.01, 3 * MB)], True, id="so far"),
        pytest.param([(0.1, 1 * MB)], True, id="after a pause"),
        pytest.param([(0.2, 3 * MB)], False, id="slow from the start"),
        pytest.param([(1.0, 250 * MB), (1.05, 1 * MB)], True, id="in each window"),
        pytest.param([(1.0, 250 * MB), (1.3, 1 * MB)], False, id="slow after a fast window"),
        pytest.param([(0.9, 800 * MB), (1.9, 1 * MB), (2.9, 1 * MB)], False, id="after a burst"),
    ],
)
def test_a_connection_is_fast_enough(received: list[tuple[float, int]], fast: bool) -> None:
    now = 0.0
    speed = ConnectionSpeed(lambda: now, fast=200 * MB)
    enough = True
    for at, size in received:
        now = at
        enough = speed.received(size)
    assert enough is fast


def test_no_connection_is_fast_enough_without_a_threshold() -> None:
    assert not ConnectionSpeed(lambda: 0.0, fast=None).received(10**12)
