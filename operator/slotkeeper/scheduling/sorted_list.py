"""Values in the order of their keys."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K", int, tuple[int, int, int])
V = TypeVar("V")


class SortedList(Generic[K, V]):
    """A sorted list: what it moves in memory for 4,000 that wait takes a microsecond."""

    __slots__ = ("_keys", "_values")

    def __init__(self) -> None:
        self._keys: list[K] = []
        self._values: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[V]:
        return (self._values[key] for key in self._keys)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    @property
    def first(self) -> V | None:
        """The value with the lowest key."""
        return self._values[self._keys[0]] if self._keys else None

    def add(self, key: K, value: V) -> None:
        """Put a value in its place."""
        insort(self._keys, key)
        self._values[key] = value

    def discard(self, key: K) -> None:
        """Take a value out, if it is there."""
        if self._values.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def peek(self, count: int) -> list[V]:
        """The first `count` values."""
        return [self._values[key] for key in self._keys[:count]] if count else []

    def rank_of(self, key: K) -> int:
        """How many have a lower key."""
        return bisect_left(self._keys, key)
