import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.gateway.config import GatewayConfig, KeyLimits
from slotkeeper.gateway.limits import KeyLimiter, RateWindow


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
