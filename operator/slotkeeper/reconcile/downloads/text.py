"""The progress of a download as text for users. Pure."""

from slotkeeper.reconcile.downloads.report import ProgressReport

STALLED = "stalled"


def column(report: ProgressReport) -> str:
    """The column of `kubectl get`: `43% 1m20s`, or what the download does instead."""
    if report.phase != "Downloading":
        return report.phase
    left = "" if report.seconds_left is None else duration(report.seconds_left)
    if report.bytes_per_second == 0:
        left = STALLED
    return f"{_share(report)} {left}".rstrip()


def message(report: ProgressReport) -> str:
    """The end of a condition's message, after `downloading the model`."""
    match report.phase:
        case "Checking":
            return ""
        case "Waiting":
            return ": waiting for another pod that downloads it"
        case "Verifying":
            return ": verifying it"
    parts = [_share(report)]
    if report.total_bytes:
        parts[0] += f" of {size(report.total_bytes)}"
    if report.bytes_per_second == 0:
        parts.append("no bytes arrive")
    elif report.bytes_per_second:
        parts.append(f"{size(report.bytes_per_second)}/s")
    if report.seconds_left is not None and report.bytes_per_second != 0:
        parts.append(f"{duration(report.seconds_left)} left")
    return ": " + ", ".join(parts)


def duration(seconds: int) -> str:
    """A duration with its two largest units: `45s`, `1m20s`, `2h5m`, `3d4h`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"


def size(number: float) -> str:
    """A number of bytes with a decimal prefix: `4.7 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.95 or (unit == "B" and number < 1000):
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _share(report: ProgressReport) -> str:
    if not report.total_bytes:
        return size(report.downloaded_bytes)
    # 100 % is a file that is verified.
    return f"{min(99, 100 * report.downloaded_bytes // report.total_bytes)}%"
