"""Watches one field of an object in the cluster."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from stack import Cluster


class FieldWatch:
    """The successive values of a field of one object, without repetitions.

    `path` is the field's JSONPath for kubectl; an absent field reads as an empty string. `on_value`
    is called with each new value.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: str,
        path: str,
        *,
        namespace: str = "default",
        on_value: Callable[[str], None] = lambda _value: None,
    ) -> None:
        self.values: list[str] = []
        self._on_value = on_value
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

    def wait_for_values(self, values: Sequence[str], seconds: float) -> bool:
        """Wait until the field has had exactly these values; return whether it did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.values == list(values), timeout=seconds)

    def wait_for_start(self, seconds: float) -> bool:
        """Wait for the first value; return whether it arrived. No later change is missed."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.values), timeout=seconds)

    def wait_for_value(self, value: str, seconds: float) -> bool:
        """Wait until the field has this value; return whether it does."""
        with self._changed:
            return self._changed.wait_for(lambda: self.values[-1:] == [value], timeout=seconds)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            value = line.strip()
            if not self.values or self.values[-1] != value:
                self._on_value(value)
                with self._changed:
                    self.values.append(value)
                    self._changed.notify_all()
