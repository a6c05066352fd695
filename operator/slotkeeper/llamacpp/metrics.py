"""llama-server's `GET /metrics`: a parser, and the sum over several replicas."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MAX_BYTES = 256 * 1024
_MAX_SERIES = 1000
_TYPE = re.compile(r"# TYPE (llamacpp:\w{1,100}) (counter|gauge)")
_HELP = re.compile(r"# HELP (llamacpp:\w{1,100}) ([^\x00-\x1f]{0,500})")
_SAMPLE = re.compile(r"(llamacpp:\w{1,100}) ([-+.\deE]{1,40})")


class Series(NamedTuple):
    """One metric without labels. llama-server has no others."""

    kind: str
    """counter or gauge"""
    help: str
    value: float


def parse_metrics(body: bytes) -> dict[str, Series]:
    """Return the metrics of a replica by name; lines that cannot be read are left out."""
    kinds: dict[str, str] = {}
    helps: dict[str, str] = {}
    parsed: dict[str, Series] = {}
    if len(body) > MAX_BYTES:
        return parsed
    for line in body.decode(errors="replace").splitlines()[: 3 * _MAX_SERIES]:
        if match := _TYPE.fullmatch(line):
            kinds[match[1]] = match[2]
        elif match := _HELP.fullmatch(line):
            helps[match[1]] = match[2]
        elif match := _SAMPLE.fullmatch(line):
            value = _number(match[2])
            name = match[1]
            if value is not None and name in kinds:
                parsed[name] = Series(kinds[name], helps.get(name, ""), value)
    return parsed


class SummedMetrics:
    """The metrics of all replicas as those of one server.

    Counters never go down when a replica restarts or is removed: what it had counted stays.
    """

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Series]] = {}
        self._ended: dict[str, float] = {}  # counters of replicas that have ended

    def update(self, replica: str, metrics: Mapping[str, Series]) -> None:
        """Set the metrics of a replica."""
        last = self._last.get(replica, {})
        for name, series in last.items():
            current = metrics.get(name)
            if series.kind == "counter" and (current is None or current.value < series.value):
                self._end(name, series)
        self._last[replica] = dict(metrics)

    def keep(self, replicas: Iterable[str]) -> None:
        """Remove all replicas but these."""
        for replica in self._last.keys() - set(replicas):
            for name, series in self._last.pop(replica).items():
                if series.kind == "counter":
                    self._end(name, series)

    def total(self) -> dict[str, Series]:
        """Return the sums.

        Not sums are maxima (`…_max`), and averages in tokens per second, of the replicas that have
        computed any.
        """
        by_name: dict[str, list[Series]] = {}
        for metrics in self._last.values():
            for name, series in metrics.items():
                by_name.setdefault(name, []).append(series)
        return {
            name: parts[0]._replace(value=self._combined(name, [each.value for each in parts]))
            for name, parts in by_name.items()
        }

    def _combined(self, name: str, values: list[float]) -> float:
        ended = self._ended.get(name, 0.0)
        if name.endswith("_max"):
            return max(*values, ended)
        if name.endswith("_tokens_seconds"):
            running = [value for value in values if value]
            return sum(running) / len(running) if running else 0.0
        return sum(values) + ended

    def _end(self, name: str, series: Series) -> None:
        ended = self._ended.get(name, 0.0)
        if name.endswith("_max"):
            self._ended[name] = max(ended, series.value)
        else:
            self._ended[name] = ended + series.value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
