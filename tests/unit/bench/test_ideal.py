from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from bench.balancer.ideal import fifo_waits, overtaken

gaps = st.integers(0, 5)
services = st.integers(1, 9)
traces = st.lists(st.tuples(gaps, services), max_size=25)
times = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20)


@given(traces, st.integers(1, 4))
def test_waits_are_those_of_a_line_played_tick_by_tick(
    trace: list[tuple[int, int]], slots: int
) -> None:
    arrivals = list(accumulate(gap for gap, _ in trace))
    lengths = [service for _, service in trace]

    assert fifo_waits(arrivals, lengths, slots) == _played(arrivals, lengths, slots)


def test_nobody_waits_while_a_slot_is_free() -> None:
    assert fifo_waits([0, 1, 2], [10, 10, 10], slots=3) == [0, 0, 0]


def test_the_first_slot_that_comes_free_is_taken() -> None:
    assert fifo_waits([0, 0, 1], [9, 3, 1], slots=2) == [0, 0, 2]


@given(times, st.integers(0, 5))
def test_overtaken_are_those_that_saw_a_later_one_start(
    requests: list[tuple[int, int]], tolerance: int
) -> None:
    seen = sum(
        any(later > at + tolerance and began < start - tolerance for later, began in requests)
        for at, start in requests
    )

    arrivals, starts = [at for at, _ in requests], [start for _, start in requests]
    assert overtaken(arrivals, starts, tolerance) == seen


def test_within_the_tolerance_nobody_is_overtaken() -> None:
    assert overtaken([0, 1], [10, 5], tolerance=2) == 0


def _played(arrivals: list[int], services: list[int], slots: int) -> list[int]:
    running: list[int] = []
    line: list[int] = []
    waits = dict.fromkeys(range(len(arrivals)), 0)
    for now in range(1000):
        running = [end for end in running if end > now]
        line += [number for number, at in enumerate(arrivals) if at == now]
        while line and len(running) < slots:
            number = line.pop(0)
            waits[number] = now - arrivals[number]
            running.append(now + services[number])
    return list(waits.values())
