from statistics import fmean, pvariance

import pytest

from bench.balancer.trace import Shape, draw

SHAPE = Shape(seed=7, count=20_000, slots=64, load=0.9, mean_service=0.05, sessions=200)


def test_one_shape_is_one_trace() -> None:
    assert draw(SHAPE) == draw(SHAPE)


def test_another_seed_is_another_trace() -> None:
    other = Shape(seed=8, count=10, slots=64, load=0.9, mean_service=0.05)

    assert draw(other) != draw(SHAPE)[:10]


def test_its_load_is_exactly_the_one_asked_for() -> None:
    arrivals = draw(SHAPE)

    work = sum(each.service for each in arrivals)

    assert work / arrivals[-1].at / SHAPE.slots == pytest.approx(SHAPE.load)


def test_services_are_as_uneven_as_asked_for() -> None:
    services = [each.service for each in draw(SHAPE)]

    c2 = pvariance(services) / fmean(services) ** 2

    assert 4 < c2 < 16


def test_each_arrival_is_one_of_the_sessions() -> None:
    assert {each.session for each in draw(SHAPE)} == set(range(200))


def test_without_sessions_a_prompt_is_nobodys() -> None:
    arrivals = draw(Shape(seed=1, count=5, slots=1, load=0.5, mean_service=1))

    assert {each.session for each in arrivals} == {-1}
