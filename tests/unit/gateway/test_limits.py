import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.gateway.config import GatewayConfig, KeyLimits
from slotkeeper.gateway.limits import KeyLimiter, PodCount, RateWindow


def limiter(replicas: int = 1, **limits: int) -> KeyLimiter:
    return KeyLimiter(GatewayConfig(limits=KeyLimits(**limits), replicas=replicas))


@given(
    st.lists(st.floats(0, 300), max_size=200).map(sorted),
    st.integers(1, 20),
)
def test_no_minute_has_more_than_the_limit(times: list[float], limit: int) -> None:
    found = limiter(requests_per_minute=limit)
    accepted = [now for now in times if found.start("ann", now) is None]

    for first in accepted:
        assert sum(first <= each < first + 60 for each in accepted) <= limit


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50).map(sorted), st.integers(1, 5))
def test_a_request_is_accepted_after_the_announced_time(times: list[float], limit: int) -> None:
    found = limiter(requests_per_minute=limit)
    for now in times:
        rejection = found.start("ann", now)
        if rejection:
            wait = rejection.error.retry_after
            assert wait is not None
            assert 0 < wait <= 65
            assert found.start("ann", now + wait) is None
            return


def test_keys_do_not_share_limits() -> None:
    found = limiter(requests_per_minute=1)

    assert [found.start(key, 0.0) is None for key in ("ann", "ann", "bob")] == [True, False, True]


@pytest.mark.parametrize(("limit", "replicas", "share"), [(10, 3, 3), (10, 1, 10), (1, 5, 1)])
def test_a_pod_enforces_its_share_and_at_least_one(limit: int, replicas: int, share: int) -> None:
    for name in ("requests_per_minute", "max_running_requests"):
        found = limiter(replicas, **{name: limit})
        assert sum(found.start("ann", 0.0) is None for _ in range(20)) == share


def test_preemptible_requests_leave_half_of_a_limit_to_others() -> None:
    for name in ("requests_per_minute", "max_running_requests"):
        found = limiter(2, **{name: 40})
        accepted = [found.start("ann", 0.0, preemptible=True) is None for _ in range(20)]
        assert sum(accepted) == 10
        assert sum(found.start("ann", 0.0) is None for _ in range(20)) == 10


def test_the_tokens_of_a_large_response_count_until_they_are_a_minute_old() -> None:
    found = limiter(tokens_per_minute=100)
    assert found.start("ann", 0.0) is None
    found.add_tokens("ann", 99, 1.0)
    assert found.start("ann", 2.0) is None
    found.add_tokens("ann", 5000, 12.0)

    rejection = found.start("ann", 13.0)
    assert rejection
    assert rejection.limit == "tokens_per_minute"
    assert rejection.error.retry_after == 62
    assert found.start("ann", 75.0) is None


def test_a_changed_limit_applies_at_once() -> None:
    found = limiter()
    assert [found.start("ann", 0.0) for _ in range(10)] == [None] * 10
    found.config = GatewayConfig(limits=KeyLimits(max_running_requests=10))
    assert found.start("ann", 0.0)
    found.finish("ann")
    assert found.start("ann", 0.0) is None


def test_a_window_stores_a_bounded_number_of_counts() -> None:
    window = RateWindow()
    for second in range(10_000):
        window.expire(float(second))
        window.add(1, float(second))

    assert len(window._steps) <= 14
    assert 60 <= window.total <= 66


def counted(*observed: tuple[float, int | None], replicas: int = 3) -> PodCount:
    pods = PodCount()
    pods.replicas = replicas
    for at, ready in observed:
        pods.set_ready(ready, at)
    return pods


@pytest.mark.parametrize(
    ("observed", "now", "expected"),
    [
        pytest.param([], 0, 3, id="all before the status is known"),
        pytest.param([(0, None)], 100, 3, id="all without a number in the status"),
        pytest.param([(0, 3), (10, 2)], 69, 3, id="a pod may only be replaced"),
        pytest.param([(0, 3), (10, 2)], 70, 2, id="a minute later its share is divided"),
        pytest.param([(0, 1), (30, 2)], 60, 2, id="the most that were ready count"),
        pytest.param([(0, 2), (30, 1)], 60, 2, id="of a whole minute"),
        pytest.param([(0, 2), (61, 2), (62, 3)], 62, 3, id="at once when it is ready again"),
        pytest.param([(0, 2), (30, 3), (31, 2)], 61, 3, id="counted anew after that"),
        pytest.param([(0, 0)], 60, 1, id="this one serves"),
        pytest.param([(0, 9)], 60, 3, id="at most those of the spec"),
        pytest.param([(0, -1)], 60, 1, id="whatever the status contains"),
    ],
)
def test_pods_that_have_not_been_ready_for_a_minute_have_no_share(
    observed: list[tuple[float, int | None]], now: float, expected: int
) -> None:
    pods = counted(*observed)
    if observed:
        pods.get(now - 1)
    assert pods.get(now) == expected


def test_more_replicas_in_the_spec_count_at_once() -> None:
    pods = counted((0, 1), replicas=1)
    pods.replicas = 4

    assert pods.get(1.0) == 4


def test_fewer_replicas_in_the_spec_count_at_once() -> None:
    pods = counted((0, 4), replicas=4)
    pods.replicas = 2

    assert pods.get(1.0) == 2


def test_the_share_of_a_missing_pod_is_used_by_the_others() -> None:
    found = limiter(2, requests_per_minute=10)
    found.pods.set_ready(1, 0.0)

    def accepted(now: float) -> int:
        return sum(found.start("ann", now) is None for _ in range(20))

    assert accepted(1.0) == 5
    assert accepted(100.0) == 10
    found.pods.set_ready(2, 200.0)
    assert accepted(200.0) == 5
