"""Fields of a JSON object from a client, with their types checked. Pure."""

from collections.abc import Mapping
from typing import Any

from slotkeeper.wire.errors import HttpError

_MAX_NUMBER = 1e18


class Fields:
    """The fields of an object; `where` is its name in error messages, for nested ones.

    Each method returns None for a field that is missing or null, and raises HttpError with status
    400 for one of another type.
    """

    def __init__(self, tree: Mapping[str, Any], where: str = "") -> None:
        self._tree = tree
        self._where = where

    def text(self, name: str) -> str | None:
        """Return a string."""
        value: str | None = self._typed(name, str, "a string")
        return value

    def flag(self, name: str) -> bool | None:
        """Return a boolean."""
        value: bool | None = self._typed(name, bool, "true or false")
        return value

    def number(self, name: str) -> float | None:
        """Return a number. It may be an int."""
        return self._number(name, "a number")

    def integer(self, name: str) -> int | None:
        """Return a whole number, also if it is written as 1.0."""
        value = self._number(name, "a whole number")
        if value is not None and value != value // 1:
            raise invalid(f"{self._where}{name} must be a whole number")
        return None if value is None else int(value)

    def items(self, name: str, kind: type, described: str) -> list[Any] | None:
        """Return a list whose items have this type; `described`: the type, for the message."""
        value: list[Any] | None = self._typed(name, list, f"a list of {described}")
        if value is not None and not all(isinstance(each, kind) for each in value):
            raise invalid(f"{self._where}{name} must be a list of {described}")
        return value

    def tree(self, name: str) -> dict[str, Any] | None:
        """Return an object."""
        value: dict[str, Any] | None = self._typed(name, dict, "an object")
        return value

    def get(self, name: str) -> Any:
        """Return a field of any type."""
        return self._tree.get(name)

    def reject(self, name: str, remedy: str) -> None:
        """Raise HttpError if a field has a value other than null, false, 0, or an empty one."""
        if self._tree.get(name):
            raise HttpError(400, "not_supported", f"{self._where}{name} is not supported: {remedy}")

    def _number(self, name: str, described: str) -> float | None:
        value = self._tree.get(name)
        if value is None:
            return None
        # In Python a bool is an int too. The comparison excludes infinity.
        if type(value) not in {int, float} or abs(value) > _MAX_NUMBER:
            raise invalid(f"{self._where}{name} must be {described}")
        number: float = value
        return number

    def _typed(self, name: str, kind: type, described: str) -> Any:
        value = self._tree.get(name)
        if value is not None and not isinstance(value, kind):
            raise invalid(f"{self._where}{name} must be {described}")
        return value


def invalid(message: str) -> HttpError:
    """400: a field has another type or value than expected; `message`: which one."""
    return HttpError(400, "invalid_field", message)
