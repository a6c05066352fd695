"""A queue in which each namespace has its turn, however many keys another one has."""

from collections.abc import Callable, Iterator

from slotkeeper.kube.objects import Key


class FairLane:
    """Keys, each at most once. Namespaces take turns; within one, first in, first out."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[Key, None]] = {}
        """In the order of their turns. None of them is empty."""

    def __len__(self) -> int:
        return sum(map(len, self._namespaces.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._namespaces.get(key.namespace, ())

    def __iter__(self) -> Iterator[Key]:
        for keys in self._namespaces.values():
            yield from keys

    def add(self, key: Key) -> None:
        """Add a key at the end, unless it is there already."""
        self._namespaces.setdefault(key.namespace, {}).setdefault(key)

    def discard(self, key: Key) -> None:
        """Remove a key if it is there."""
        keys = self._namespaces.get(key.namespace, {})
        keys.pop(key, None)
        if not keys:
            self._namespaces.pop(key.namespace, None)

    def take(
        self,
        namespace_allowed: Callable[[str], bool] = lambda _: True,
        key_allowed: Callable[[Key], bool] = lambda _: True,
    ) -> Key | None:
        """Remove and return the next key that is allowed; None where none is."""
        for namespace, keys in self._namespaces.items():
            if not namespace_allowed(namespace):
                continue
            for key in filter(key_allowed, keys):
                del keys[key]
                del self._namespaces[namespace]
                if keys:
                    # At the end: the others have their turns first.
                    self._namespaces[namespace] = keys
                return key
        return None
