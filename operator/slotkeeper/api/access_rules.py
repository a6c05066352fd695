"""What clients of a server may request: written by the operator, enforced by the balancers.

Balancers have their rules from their flags. The operator publishes those of the current spec as an
annotation of the balancers' Role, so that a balancer of an older spec applies stricter ones at
once, also where no balancer of the current spec can start. A Role, because the permission to write
Leases, pods or Deployments is not enough to change it. No pydantic: the balancer's image has none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from slotkeeper.api import paths
from slotkeeper.bounded_json import parse

ALL_PATHS = frozenset(path.encode() for path in paths.PROXIED)

_MAX_CHARACTERS = 2**18
"""Of an annotation; Kubernetes allows no more."""


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What clients may request."""

    max_priority: int = 0
    """X-Priority is accepted from -max_priority to max_priority, higher first; 0: it is ignored."""
    max_priorities: Mapping[str, int] = field(default_factory=dict)
    """Higher or lower bounds for some API keys, by their names."""
    allowed_paths: frozenset[bytes] = ALL_PATHS
    """Paths that are proxied."""
    api_keys_secret: str = ""
    """Name of the Secret with the API keys; empty: no key is required."""

    def max_priority_of(self, key_name: str | None) -> int:
        """Return the highest priority for an API key; None: for requests without one."""
        if key_name is None:
            return self.max_priority
        return self.max_priorities.get(key_name, self.max_priority)

    def restricted_by(self, other: "AccessRules") -> "AccessRules":
        """Return the stricter of both in everything but the API keys."""
        names = {*self.max_priorities, *other.max_priorities}
        return replace(
            self,
            max_priority=min(self.max_priority, other.max_priority),
            max_priorities={
                name: min(self.max_priority_of(name), other.max_priority_of(name)) for name in names
            },
            allowed_paths=self.allowed_paths & other.allowed_paths,
        )

    def requires_other_keys_than(self, other: "AccessRules") -> bool:
        """Whether a balancer with the `other` rules cannot verify the API keys of these."""
        return self.api_keys_secret not in {"", other.api_keys_secret}

    def to_annotation(self) -> str:
        """Return the annotation's value."""
        everything = self.allowed_paths == ALL_PATHS
        allowed = None if everything else sorted(path.decode() for path in self.allowed_paths)
        tree = {
            "allowedPaths": allowed,
            "apiKeysSecret": self.api_keys_secret,
            "maxPriorities": dict(self.max_priorities),
            "maxPriority": self.max_priority,
        }
        return json.dumps(tree, sort_keys=True)

    @classmethod
    def from_annotation(cls, text: str) -> Self:
        """Parse an annotation's value. Raises ValueError if it is malformed."""
        try:
            tree = parse(text, max_bytes=_MAX_CHARACTERS)
            allowed = tree["allowedPaths"]
            return cls(
                _priority(tree["maxPriority"]),
                {str(name): _priority(each) for name, each in tree["maxPriorities"].items()},
                ALL_PATHS if allowed is None else frozenset(str(path).encode() for path in allowed),
                str(tree["apiKeysSecret"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not access rules: {error!r}") from None


def _priority(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000:
        raise ValueError("a priority must be from 0 to 1000")
    return value
