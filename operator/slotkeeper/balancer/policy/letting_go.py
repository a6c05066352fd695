"""Which slots of abandoned requests llama-server has let go of."""

from typing import Any

from slotkeeper.balancer.policy.replica import Replica
from slotkeeper.balancer.policy.ticket import Claim


class Look:
    """One look at a replica's /slots, from the moment it is asked until it answers.

    /slots gives a number of processing slots and no names. What it counts beyond the requests
    that run are abandoned ones. Only a request that was there when we asked and is there when the
    answer comes is sure to be in the number: one that began or ended meanwhile may not be, and
    must not let an abandoned one pass for it.
    """

    def __init__(self, replica: Replica, now: float) -> None:
        self._abandoned = sorted(
            (claim for claim in replica.claims if claim.abandoned_at is not None),
            key=lambda claim: claim.abandoned_at,
        )
        self._running = [
            claim
            for claim in replica.claims
            if claim.abandoned_at is None and claim.settled_at <= now
        ]

    @property
    def nothing(self) -> bool:
        """There is nothing to ask about."""
        return not self._abandoned

    def let_go(self, processing: int) -> list[Claim[Any]]:
        """The claims that are free now that /slots has answered `processing`, the oldest first."""
        still = sum(not claim.over and claim.abandoned_at is None for claim in self._running)
        held = max(0, processing - still)
        return self._abandoned[: max(0, len(self._abandoned) - held)]

    def overdue(self, now: float, limit: float) -> list[Claim[Any]]:
        """The claims that llama-server has been asked about for more than `limit` seconds."""
        return [claim for claim in self._abandoned if now - claim.abandoned_at >= limit]
