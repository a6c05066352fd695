"""What keeps all replicas from starting: the operator knows it, and its balancers tell clients.

It stands on the Lease that a server's balancers watch anyway. So they need no further right, it
outlives all of them, and nothing is written while nothing is new. No pydantic here: balancers have
none.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

_LONGEST = 1000
"""Characters of a message: the scheduler's grows with the cluster."""


@dataclass(frozen=True, slots=True)
class StartBlocker:
    """Why no replica is ready, and none will be as things stand."""

    reason: str
    """As in a condition."""
    message: str
    """For people: clients get it in their answers."""
    permanent: bool
    """Somebody has to mend something: it is of no use to wait."""

    def to_annotation(self) -> str:
        """As an annotation's value."""
        message = self.message
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST - 1]}…"
        return json.dumps({**asdict(self), "message": message}, sort_keys=True)

    @classmethod
    def from_annotation(cls, text: str | None) -> Self | None:
        """What an annotation says; None where it says nothing that could be understood."""
        try:
            said = json.loads(text or "null")
            return cls(str(said["reason"]), str(said["message"]), said["permanent"] is True)
        except (ValueError, TypeError, KeyError):
            return None
