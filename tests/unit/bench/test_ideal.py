from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from bench.balancer.ideal import bypassed, fifo_waits

gaps = st.integers(0, 5)
services = st.integers(1, 9)
traces = st.lists(st.tuples(gaps, services), max_size=25)
times = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20)


@given(traces, st.integers(1, 4))
def test_waits_equal_those_of_a_queue_simulated_tick_by_tick(
    trace: list[tuple[int, int]], slots: int
) -> None:
    arrivals = list(accumulate(gap for gap, _ in trace))
    lengths = [service for _, service in trace]

    assert fifo_waits(arrivals, lengths, slots) == _simulated(arrivals, lengths, slots)


def test_no_request_waits_while_a_slot_is_free() -> None:
    assert fifo_waits([0, 1, 2], [10, 10, 10], slots=3) == [0, 0, 0]


def test_the_slot_that_is_free_first_is_used() -> None:
    assert fifo_waits([0, 0, 1], [9, 3, 1], slots=2) == [0, 0, 2]


@given(times, st.integers(0, 5))
def test_bypassed_requests_are_those_with_a_later_one_started_before(
    requests: list[tuple[int, int]], tolerance: int
) -> None:
    expected = sum(
        any(later > at + tolerance and began < start - tolerance for later, began in requests)
        for at, start in requests
    )

    arrivals, starts = [at for at, _ in requests], [start for _, start in requests]
    assert bypassed(arrivals, starts, tolerance) == expected


def test_within_the_tolerance_no_request_counts_as_bypassed() -> None:
    assert bypassed([0, 1], [10, 5], tolerance=2) == 0


def _simulated(arrivals: list[int], services: list[int], slots: int) -> list[int]:
    running: list[int] = []
    queue: list[int] = []
    waits = dict.fromkeys(range(len(arrivals)), 0)
    for now in range(1000):
        running = [end for end in running if end > now]
        queue += [number for number, at in enumerate(arrivals) if at == now]
        while queue and len(running) < slots:
            number = queue.pop(0)
            waits[number] = now - arrivals[number]
            running.append(now + services[number])
    return list(waits.values())
