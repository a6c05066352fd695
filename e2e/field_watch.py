"""A value in the cluster as it changes, told by the API server instead of by asking again."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from stack import Cluster


class FieldWatch:
    """The values that a field of one object goes through, repeats left out.

    `path` is kubectl's JSONPath of the field; an absent one reads as an empty string. `seen` is
    called with each new value.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: str,
        path: str,
        *,
        namespace: str = "default",
        seen: Callable[[str], None] = lambda _value: None,
    ) -> None:
        self.seen: list[str] = []
        self._tell = seen
        self._changed = threading.Condition()
        output = f"jsonpath={path}{{'\\n'}}"
        self._process = cluster.start(
            *("kubectl", "-n", namespace, "get", resource, "--watch", "-o", output)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._reader.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def wait_for(self, values: Sequence[str], seconds: float) -> bool:
        """Whether the field has gone through exactly these values within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.seen == list(values), timeout=seconds)

    def begins(self, seconds: float) -> bool:
        """Whether a value has been seen, or is within so many seconds: what is done from then on
        is not missed."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.seen), timeout=seconds)

    def comes_to(self, value: str, seconds: float) -> bool:
        """Whether the field has this value now, or gets it within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.seen[-1:] == [value], timeout=seconds)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            value = line.strip()
            if not self.seen or self.seen[-1] != value:
                self._tell(value)
                with self._changed:
                    self.seen.append(value)
                    self._changed.notify_all()
