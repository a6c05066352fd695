"""Which slots of aborted requests llama-server has released."""

from slotkeeper.scheduling.replica import AdoptedSlot, FurtherSlot, Replica, SlotHold


class SlotProbe:
    """One poll of a replica's /slots, from the request until the response.

    /slots returns a count of processing slots, not identities. The count minus the requests known
    to run for the whole probe is what aborted or foreign requests still hold. A request that began
    or ended during the probe may or may not be in the count. It is left out, since it must not
    make an aborted request look released. For the same reason a running request that takes several
    slots counts as one here: some of them may be free already. Nor is a request released that was
    aborted before llama-server has certainly begun it: it would begin, and only then notice the
    disconnect.
    """

    def __init__(self, replica: Replica, now: float) -> None:
        # Adopted slots last. They never time out, so that an aborted request must not time out
        # because of a slot that an adopted one holds.
        visible = [hold for hold in replica.holds if hold.visible_at <= now]
        self._aborted = sorted(
            (hold for hold in visible if hold.aborted_at is not None),
            key=lambda hold: (isinstance(hold, AdoptedSlot), hold.aborted_at),
        )
        self._running = [hold for hold in visible if hold.aborted_at is None]
        self._has_invisible = any(
            hold.aborted_at is not None for hold in replica.holds if hold.visible_at > now
        )

    @property
    def is_empty(self) -> bool:
        """Whether no aborted slot remains to be polled."""
        return not self._aborted and not self._has_invisible

    @property
    def only_adopted(self) -> bool:
        """Whether only adopted slots remain to be polled, whose requests may run for minutes."""
        first = self._aborted[0] if self._aborted else None
        return isinstance(first, AdoptedSlot) and not self._has_invisible

    def released(self, processing: int) -> list[SlotHold]:
        """Return the holds that are released if /slots counts `processing`, the oldest first."""
        unreleased = max(0, processing - self._still_running(further=False))
        return self._aborted[: max(0, len(self._aborted) - unreleased)]

    def foreign(self, processing: int) -> int:
        """Return how many of `processing` requests have no hold here."""
        return max(0, processing - self._still_running(further=True) - len(self._aborted))

    def timed_out(self, now: float, limit: float) -> list[SlotHold]:
        """Return the holds that were aborted `limit` seconds ago or earlier.

        Never adopted ones: their clients may be waiting for the end of a long response.
        """
        return [
            hold
            for hold in self._aborted
            if now - (hold.aborted_at or now) >= limit and not isinstance(hold, AdoptedSlot)
        ]

    def _still_running(self, *, further: bool) -> int:
        return sum(
            not hold.released and hold.aborted_at is None
            for hold in self._running
            if further or not isinstance(hold, FurtherSlot)
        )
