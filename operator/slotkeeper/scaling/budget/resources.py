"""Amounts that a budget limits: GPUs, memory and loaded models."""

from math import inf
from typing import NamedTuple


class Resources(NamedTuple):
    """An amount of each resource, or, of a limit, `inf` where there is none."""

    gpus: float = 0
    memory: float = 0
    """Bytes."""
    models: float = 0
    """Models with at least one replica."""

    def plus(self, other: "Resources", times: int = 1) -> "Resources":
        """Return the sum with `times` as much of `other`."""
        return Resources(
            self.gpus + other.gpus * times,
            self.memory + other.memory * times,
            self.models + other.models * times,
        )

    def minus(self, other: "Resources", times: int = 1) -> "Resources":
        """Return the difference with `times` as much of `other`; amounts may be negative."""
        return self.plus(other, -times)

    def fits(self, available: "Resources") -> bool:
        """Whether this much is available. What needs nothing of a resource fits in any amount."""
        return all(
            need <= amount or need <= 0 for need, amount in zip(self, available, strict=True)
        )

    def helps(self, missing: "Resources") -> bool:
        """Whether this has something of a resource that is missing."""
        return any(amount > 0 and lack > 0 for amount, lack in zip(self, missing, strict=True))

    def share_of(self, limit: "Resources") -> float:
        """Return the largest share, 0 to 1, of a limited resource."""
        return max(
            amount / bound if bound else float(amount > 0)
            for amount, bound in zip(self, limit, strict=True)
        )


def limits(
    gpus: float | None = None, memory: float | None = None, models: float | None = None
) -> Resources:
    """Return a limit; None: no limit."""
    return Resources(*(inf if each is None else each for each in (gpus, memory, models)))


UNLIMITED = limits()
ONE_MODEL = Resources(models=1)


def describe(amount: Resources, limit: Resources) -> str:
    """Return the limited resources of an amount as text, such as `2 GPUs, 8.0 GiB`."""
    parts = []
    if limit.gpus != inf:
        parts.append(f"{amount.gpus:g} GPU{'' if amount.gpus == 1 else 's'}")
    if limit.memory != inf:
        parts.append(_memory(amount.memory))
    if limit.models != inf:
        parts.append(f"{amount.models:g} model{'' if amount.models == 1 else 's'}")
    return ", ".join(parts)


def _memory(size: float) -> str:
    """Return bytes as text; small amounts are not rounded so far that different ones look equal."""
    if size >= 10 * 2**30 or size % 2**30 == 0:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB"
