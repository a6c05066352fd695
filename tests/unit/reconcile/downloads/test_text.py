import pytest

from slotkeeper.api.download_progress import Phase
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.downloads.text import column, duration, message, size

GB = 10**9


def report(
    downloaded: int = 0,
    total: int | None = 4 * GB,
    speed: int | None = None,
    left: int | None = None,
    phase: Phase = "Downloading",
) -> ProgressReport:
    return ProgressReport(
        phase=phase,
        total_bytes=total,
        downloaded_bytes=downloaded,
        bytes_per_second=speed,
        seconds_left=left,
    )


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (report(1_750_000_000, speed=GB, left=80), "43% 1m20s"),
        (report(), "0%"),
        (report(4 * GB - 1, speed=GB, left=1), "99% 1s"),
        (report(4 * GB, speed=GB, left=0), "99% 0s"),
        (report(2 * GB, speed=0), "50% stalled"),
        (report(1_250_000_000, total=None, speed=GB), "1.2 GB"),
        (report(0, total=0), "0 B"),
        (report(phase="Checking"), "Checking"),
        (report(4 * GB, phase="Verifying"), "Verifying"),
        (report(phase="Waiting"), "Waiting"),
    ],
)
def test_the_column_shows_share_and_time_left_or_the_phase(
    progress: ProgressReport, shown: str
) -> None:
    assert column(progress) == shown


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (
            report(1_750_000_000, speed=28_125_000, left=80),
            ": 43% of 4.0 GB, 28.1 MB/s, 1m20s left",
        ),
        (report(), ": 0% of 4.0 GB"),
        (report(2 * GB, speed=0), ": 50% of 4.0 GB, no bytes arrive"),
        (report(2 * GB, total=None, speed=GB), ": 2.0 GB, 1.0 GB/s"),
        (report(phase="Checking"), ""),
        (report(4 * GB, phase="Verifying"), ": verifying it"),
        (report(phase="Waiting"), ": waiting for another pod that downloads it"),
    ],
)
def test_the_message_has_size_speed_and_time_left(progress: ProgressReport, shown: str) -> None:
    assert message(progress) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m0s"),
        (80, "1m20s"),
        (3599, "59m59s"),
        (3600, "1h0m"),
        (7530, "2h5m"),
        (86400, "1d0h"),
        (277_200, "3d5h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (4_683_073_184, "4.7 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_a_size_has_a_decimal_prefix(number: int, shown: str) -> None:
    assert size(number) == shown
