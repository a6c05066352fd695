from pathlib import Path

import pytest

from slotkeeper.download.tracker import Tracker

A, B = Path("/models/a.gguf"), Path("/models/b.gguf")
MB = 1_000_000


class Simulation:
    """A tracker with simulated time."""

    def __init__(self, files: int = 1) -> None:
        self.now = 100.0
        self.tracker = Tracker(lambda: self.now, files)

    def receive(self, path: Path, size: int, *, seconds: int, start: int = 0) -> None:
        """Receive up to `size` bytes in equal parts, four a second."""
        steps = seconds * 4
        for step in range(1, steps + 1):
            self.now += 0.25
            self.tracker.received_up_to(path, start + (size - start) * step // steps)

    def report(self, *fields: str) -> list[object]:
        report = self.tracker.report()
        return [report[field] for field in fields]


def test_a_download_that_has_not_started_is_checking() -> None:
    assert Tracker().report() == {
        "file": "",
        "bytes": None,
        "downloadedBytes": 0,
        "bytesPerSecond": None,
        "secondsLeft": None,
        "phase": "Checking",
    }


def test_bytes_speed_and_time_left_follow_what_arrives() -> None:
    simulation = Simulation()
    simulation.tracker.begin(A, "a.gguf")
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 40 * MB, seconds=10)

    assert simulation.tracker.report() == {
        "file": "a.gguf",
        "bytes": 100 * MB,
        "downloadedBytes": 40 * MB,
        "bytesPerSecond": 4 * MB,
        "secondsLeft": 15,
        "phase": "Downloading",
    }


def test_bytes_that_were_there_before_count_as_downloaded_and_not_for_the_speed() -> None:
    simulation = Simulation()
    simulation.tracker.begin(A, "a.gguf")
    simulation.tracker.started(A, 50 * MB, 100 * MB)
    simulation.receive(A, 60 * MB, seconds=10, start=50 * MB)

    assert simulation.report("downloadedBytes", "bytesPerSecond") == [60 * MB, MB]
    assert simulation.tracker.received == 10 * MB


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 1000 * MB)
    simulation.receive(A, 600 * MB, seconds=60)
    simulation.receive(A, 630 * MB, seconds=30, start=600 * MB)

    assert simulation.report("bytesPerSecond", "secondsLeft") == [MB, 370]


def test_a_burst_changes_the_estimate_little() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 1000 * MB)
    simulation.receive(A, 30 * MB, seconds=30)
    simulation.now += 1
    simulation.tracker.received_up_to(A, 40 * MB)

    [speed] = simulation.report("bytesPerSecond")
    assert isinstance(speed, int)
    assert MB < speed < 1.5 * MB


@pytest.mark.parametrize(("seconds", "speed"), [(15, MB // 2), (31, 0), (3600, 0)])
def test_a_download_that_receives_nothing_slows_down_to_nothing(seconds: int, speed: int) -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 15 * MB, seconds=15)
    before = simulation.report("bytesPerSecond")
    simulation.now += seconds

    assert before == [MB]
    assert simulation.report("bytesPerSecond", "secondsLeft") == [speed, None]


def test_there_is_no_speed_in_the_first_second() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.now += 0.5
    simulation.tracker.received_up_to(A, 50 * MB)

    assert simulation.report("bytesPerSecond", "secondsLeft") == [None, None]


def test_an_estimate_of_more_than_a_month_is_none() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 10**9 * MB)
    simulation.receive(A, 20 * MB, seconds=20)

    assert simulation.report("bytesPerSecond", "secondsLeft") == [MB, None]


def test_there_is_no_time_left_until_enough_has_arrived_for_long_enough() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 1000 * MB)
    simulation.receive(A, 20 * MB, seconds=4)
    short = simulation.report("bytesPerSecond", "secondsLeft")
    simulation.receive(A, 25 * MB, seconds=1, start=20 * MB)

    assert short == [5 * MB, None]
    assert simulation.report("bytesPerSecond", "secondsLeft") == [5 * MB, 195]


def test_few_bytes_are_no_speed_for_an_estimate() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 1000 * MB)
    simulation.receive(A, 100_000, seconds=8)

    assert simulation.report("bytesPerSecond", "secondsLeft") == [12_500, None]


def test_the_check_of_the_header_is_not_the_speed_of_the_download() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 100_000, seconds=8)
    simulation.tracker.started(A, 100_000, 100 * MB)
    simulation.receive(A, 50 * MB, seconds=5, start=100_000)

    [left] = simulation.report("secondsLeft")
    assert left == 6


def test_the_time_left_does_not_grow_while_nothing_arrives() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 15 * MB, seconds=15)
    left = []
    for _ in range(31):
        left += simulation.report("secondsLeft")
        simulation.now += 1

    assert left == [85] * 11 + [None] * 20


def test_after_a_pause_the_time_left_is_measured_anew() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 15 * MB, seconds=15)
    simulation.now += 20
    simulation.tracker.started(A, 15 * MB, 100 * MB)
    simulation.receive(A, 17 * MB, seconds=2, start=15 * MB)
    soon = simulation.report("secondsLeft")
    simulation.receive(A, 25 * MB, seconds=8, start=17 * MB)

    assert soon == [None]
    assert simulation.report("secondsLeft") == [75]


def test_a_host_that_responds_and_sends_nothing_is_stalled_after_half_a_minute() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.now += 29
    before = simulation.report("bytesPerSecond")
    # Another try.
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.now += 2

    assert before == [None]
    assert simulation.report("bytesPerSecond") == [0]


def test_bytes_cover_all_files_and_are_known_once_all_sizes_are() -> None:
    simulation = Simulation(files=2)
    tracker = simulation.tracker
    tracker.begin(A, "a.gguf")
    tracker.started(A, 0, 60 * MB)
    simulation.receive(A, 60 * MB, seconds=6)
    first = simulation.report("file", "bytes", "downloadedBytes", "secondsLeft")
    tracker.completed(A, 60 * MB)
    tracker.begin(B, "b.gguf")
    tracker.started(B, 0, 40 * MB)
    simulation.receive(B, 20 * MB, seconds=2)

    assert first == ["a.gguf", None, 60 * MB, None]
    assert simulation.report("file", "bytes", "downloadedBytes", "secondsLeft") == [
        "b.gguf",
        100 * MB,
        80 * MB,
        2,
    ]


def test_sizes_that_are_known_in_advance_count_from_the_start() -> None:
    simulation = Simulation(files=2)
    simulation.tracker.expect(A, 60 * MB)
    simulation.tracker.expect(B, 40 * MB)
    simulation.tracker.started(A, 0, 60 * MB)
    simulation.receive(A, 10 * MB, seconds=5)

    assert simulation.report("bytes", "secondsLeft") == [100 * MB, 45]


def test_a_file_in_place_counts_as_downloaded() -> None:
    simulation = Simulation(files=2)
    simulation.tracker.begin(A, "a.gguf")
    simulation.tracker.completed(A, 60 * MB)

    assert simulation.report("bytes", "downloadedBytes") == [None, 60 * MB]
    assert simulation.tracker.received == 0


def test_a_file_that_restarts_from_its_first_byte_is_counted_again() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 80 * MB, seconds=8)
    simulation.tracker.started(A, 0, 100 * MB)
    simulation.receive(A, 10 * MB, seconds=1)

    assert simulation.report("downloadedBytes") == [10 * MB]
    assert simulation.tracker.received == 90 * MB


def test_a_host_that_sends_more_than_announced_never_exceeds_the_total() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 10 * MB)
    simulation.receive(A, 20 * MB, seconds=5)

    assert simulation.report("bytes", "downloadedBytes", "secondsLeft") == [20 * MB, 20 * MB, 0]


def test_only_a_running_download_has_a_speed() -> None:
    simulation = Simulation()
    simulation.tracker.started(A, 0, 10 * MB)
    simulation.receive(A, 10 * MB, seconds=2)
    simulation.tracker.enter("Verifying")

    assert simulation.report("phase", "bytesPerSecond", "secondsLeft") == ["Verifying", None, None]
