"""The options of priming."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrimingOptions:
    """How replicas are primed."""

    max_seconds: float
    """For each replica."""
    learned: bool = False
    config_map: str = ""
    """Its name, for messages."""
