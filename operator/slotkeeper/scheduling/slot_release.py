"""Which slots of requests that are over here llama-server has let go of."""

from slotkeeper.scheduling.replica import AdoptedSlot, Replica, SlotHold


class SlotProbe:
    """One look at a replica's /slots, from the moment it is asked until it answers.

    /slots gives a number of processing slots and no names. What it counts beyond the requests
    that run are abandoned ones, and ones that were never sent from here. Only a request that was
    there when we asked and is there when the answer comes is sure to be in the number: one that
    began or ended meanwhile may not be, and must not let an abandoned one pass for it. Nor is one
    let go that was abandoned before llama-server can have begun it: it would begin, and only then
    see that nobody waits.
    """

    def __init__(self, replica: Replica, now: float) -> None:
        # Inherited ones last: as those have no limit in time, an abandoned one must not be taken
        # for overdue on the strength of a slot that an inherited one holds.
        settled = [claim for claim in replica.holds if claim.visible_at <= now]
        self._abandoned = sorted(
            (claim for claim in settled if claim.aborted_at is not None),
            key=lambda claim: (isinstance(claim, AdoptedSlot), claim.aborted_at),
        )
        self._running = [claim for claim in settled if claim.aborted_at is None]
        self._unsettled = any(
            claim.aborted_at is not None for claim in replica.holds if claim.visible_at > now
        )

    @property
    def is_empty(self) -> bool:
        """There is nothing to ask about, now or soon."""
        return not self._abandoned and not self._unsettled

    @property
    def only_adopted(self) -> bool:
        """Nothing but the ends of others' requests is waited for, and those may take minutes."""
        first = self._abandoned[0] if self._abandoned else None
        return isinstance(first, AdoptedSlot) and not self._unsettled

    def released(self, processing: int) -> list[SlotHold]:
        """The claims that are free now that /slots has answered `processing`, the oldest first."""
        held = max(0, processing - self._still(self._running))
        return self._abandoned[: max(0, len(self._abandoned) - held)]

    def foreign(self, processing: int) -> int:
        """How many of `processing` requests are held by nobody here."""
        return max(0, processing - self._still(self._running) - len(self._abandoned))

    def timed_out(self, now: float, limit: float) -> list[SlotHold]:
        """The claims that llama-server has been asked about for more than `limit` seconds.

        Never inherited ones: their requests may have clients that wait for a long answer's end.
        """
        return [
            claim
            for claim in self._abandoned
            if now - (claim.aborted_at or now) >= limit and not isinstance(claim, AdoptedSlot)
        ]

    @staticmethod
    def _still(running: list[SlotHold]) -> int:
        return sum(not claim.released and claim.aborted_at is None for claim in running)
