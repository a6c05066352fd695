"""Which beginnings different requests share, and how often.

They are learned from requests that replicas accept. A beginning is one of the prefixes whose hashes
the requests have anyway. Two requests that part after it are kept of each: what both have in common
is what a new replica computes. They are user data, in memory only.
"""

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from slotkeeper.api.primed_prompts import PromptKind
from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, PrefixHashes

MAX_BODY_BYTES = 64 * 1024
MAX_TOTAL_BYTES = 2 * 2**20
MAX_LEARNED = 8
"""Beginnings that a new replica computes."""

_MAX_BEGINNINGS = 1024
_MAX_COMPARED = 64
_HALF_LIFE_SECONDS = 3600.0
_MIN_WEIGHT = 0.1
"""A beginning that two requests shared is forgotten after four hours."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A request that is kept."""

    kind: PromptKind
    body: bytes
    digest: bytes
    following: int | None
    """Its next prefix, if it has one."""


@dataclass(slots=True, eq=False)
class _Beginning:
    prefixes: PrefixHashes
    weight: float = 0.0
    """Requests, each halved after an hour, as of `at`."""
    at: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def weight_at(self, now: float) -> float:
        return float(self.weight * 0.5 ** (max(0.0, now - self.at) / _HALF_LIFE_SECONDS))


@dataclass(frozen=True, slots=True)
class Learned:
    """A beginning that different requests share."""

    prefixes: PrefixHashes
    first: Sample
    second: Sample


class LearnedPrompts:
    """The beginnings of the last requests."""

    def __init__(self, max_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._beginnings: OrderedDict[int, _Beginning] = OrderedDict()  # by hash, last used last
        self._kept: dict[bytes, tuple[bytes, int]] = {}  # digest -> body, samples that have it
        self.bytes = 0
        """Of all bodies that are kept."""

    def clear(self) -> None:
        """Forget everything."""
        self._beginnings.clear()
        self._kept.clear()
        self.bytes = 0

    def record(self, kind: PromptKind, body: bytes, prefixes: PrefixHashes, now: float) -> None:
        """Record a request; a larger one than MAX_BODY_BYTES is not kept."""
        if not prefixes or len(body) > MAX_BODY_BYTES:
            return
        digest = hashlib.blake2b(body, digest_size=16).digest()
        for number, prefix in enumerate(prefixes):
            beginning = self._beginnings.setdefault(prefix, _Beginning(prefixes[: number + 1]))
            self._beginnings.move_to_end(prefix)
            beginning.weight = beginning.weight_at(now) + 1
            beginning.at = now
            following = prefixes[number + 1] if number + 1 < len(prefixes) else None
            self._add(beginning, Sample(kind, body, digest, following))
        while len(self._beginnings) > _MAX_BEGINNINGS:
            self._forget(next(iter(self._beginnings)))
        while self.bytes > self._max_bytes:
            self._forget(self._least_valuable())

    def discard(self, prefixes: PrefixHashes) -> None:
        """Forget a beginning."""
        if prefixes and prefixes[-1] in self._beginnings:
            self._forget(prefixes[-1])

    def hottest(self, now: float, count: int = MAX_LEARNED) -> list[Learned]:
        """Return the beginnings that save the most, the best first.

        A beginning saves its length for each request. With a longer one that is chosen already it
        saves something only for the other requests; after a shorter one, only what it adds to it.
        """
        shared = heapq.nlargest(
            _MAX_COMPARED,
            (
                each
                for each in self._beginnings.values()
                if len(each.samples) == 2 and each.weight_at(now) >= _MIN_WEIGHT
            ),
            key=lambda each: _gain(each, [], now),
        )
        chosen: list[_Beginning] = []
        while shared and len(chosen) < count:
            gains = {id(each): _gain(each, chosen, now) for each in shared}
            best = max(shared, key=lambda each: gains[id(each)])
            if gains[id(best)] <= 0:
                break
            shared.remove(best)
            chosen.append(best)
        return [Learned(each.prefixes, each.samples[0], each.samples[1]) for each in chosen]

    def _least_valuable(self) -> int:
        """Return one of those that were used the longest ago; if there is one, one that no two
        requests share."""
        oldest = list(islice(self._beginnings, _MAX_COMPARED))
        unshared = (each for each in oldest if len(self._beginnings[each].samples) < 2)
        return next(unshared, oldest[0])

    def _add(self, beginning: _Beginning, sample: Sample) -> None:
        samples = beginning.samples
        if len(samples) == 2 or (samples and not _parts(samples[0], sample)):
            return
        body, count = self._kept.get(sample.digest, (sample.body, 0))
        if count == 0:
            self.bytes += len(body)
        self._kept[sample.digest] = (body, count + 1)
        samples.append(Sample(sample.kind, body, sample.digest, sample.following))

    def _forget(self, prefix: int) -> None:
        for sample in self._beginnings.pop(prefix).samples:
            body, count = self._kept.pop(sample.digest)
            if count > 1:
                self._kept[sample.digest] = (body, count - 1)
            else:
                self.bytes -= len(body)


def _parts(first: Sample, second: Sample) -> bool:
    """Whether two requests differ right after their common beginning: before its next prefix."""
    if first.kind is not second.kind or first.digest == second.digest:
        return False
    return first.following is None or first.following != second.following


def _gain(beginning: _Beginning, chosen: list[_Beginning], now: float) -> float:
    size = PREFIX_SIZES[len(beginning.prefixes) - 1]
    shorter = [0, *(PREFIX_SIZES[len(each.prefixes) - 1] for each in _before(beginning, chosen))]
    longer = [0.0, *(each.weight_at(now) for each in chosen if [*_before(each, [beginning])])]
    return (beginning.weight_at(now) - max(longer)) * (size - max(shorter))


def _before(beginning: _Beginning, others: list[_Beginning]) -> Iterator[_Beginning]:
    """Yield those of `others` with which a beginning begins."""
    for other in others:
        length = len(other.prefixes)
        if length < len(beginning.prefixes) and beginning.prefixes[:length] == other.prefixes:
            yield other
