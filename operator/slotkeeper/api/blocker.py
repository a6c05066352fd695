"""What blocks all replicas from starting: found by the operator, reported to clients by balancers.

Stored as an annotation of the balancers' Role, which they watch: it outlives every balancer, and
nothing is written unless it changes. Users may often patch Leases, and seldom Roles. No pydantic:
the balancer's image has none.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

from slotkeeper.bounded_json import parse

_MAX_CHARACTERS = 1000
"""Of a message: the scheduler's grows with the cluster."""
_MAX_ANNOTATION = 16 * 1024
"""Characters of an annotation: of a message, JSON may write each as twelve."""


@dataclass(frozen=True, slots=True)
class StartBlocker:
    """Why no replica is ready or will become ready."""

    reason: str
    """Reason of a condition."""
    message: str
    """For people: part of error responses to clients."""
    permanent: bool
    """Whether waiting is useless: a user has to fix something first."""

    def to_annotation(self) -> str:
        """Return the annotation's value."""
        message = self.message
        if len(message) > _MAX_CHARACTERS:
            message = f"{message[: _MAX_CHARACTERS - 1]}…"
        return json.dumps({**asdict(self), "message": message}, sort_keys=True)

    @classmethod
    def from_annotation(cls, text: str | None) -> Self | None:
        """Parse an annotation's value; None if it is missing or malformed.

        Others than the operator may have written it.
        """
        try:
            tree = parse(text or "null", max_bytes=_MAX_ANNOTATION)
            return cls(str(tree["reason"]), str(tree["message"]), tree["permanent"] is True)
        except (ValueError, TypeError, KeyError):
            return None
