from statistics import fmean, pvariance

import pytest

from bench.balancer.workload import Workload, draw

WORKLOAD = Workload(seed=7, count=20_000, slots=64, load=0.9, mean_service=0.05, sessions=200)


def test_the_same_workload_has_the_same_requests() -> None:
    assert draw(WORKLOAD) == draw(WORKLOAD)


def test_another_seed_has_other_requests() -> None:
    other = Workload(seed=8, count=10, slots=64, load=0.9, mean_service=0.05)

    assert draw(other) != draw(WORKLOAD)[:10]


def test_the_load_is_exact() -> None:
    arrivals = draw(WORKLOAD)

    work = sum(each.service for each in arrivals)

    assert work / arrivals[-1].at / WORKLOAD.slots == pytest.approx(WORKLOAD.load)


def test_service_times_have_the_configured_variation() -> None:
    services = [each.service for each in draw(WORKLOAD)]

    c2 = pvariance(services) / fmean(services) ** 2

    assert 4 < c2 < 16


def test_each_request_belongs_to_a_session() -> None:
    assert {each.session for each in draw(WORKLOAD)} == set(range(200))


def test_without_sessions_no_request_has_one() -> None:
    arrivals = draw(Workload(seed=1, count=5, slots=1, load=0.5, mean_service=1))

    assert {each.session for each in arrivals} == {-1}
