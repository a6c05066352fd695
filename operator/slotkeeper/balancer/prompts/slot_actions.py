"""Saving and restoring the slots of one llama-server."""

from slotkeeper.llamacpp import slot_files
from slotkeeper.llamacpp.slot_files import SlotFile
from slotkeeper.llamacpp.slots import MAX_BYTES, Slot, parse_slots
from slotkeeper.wire.http_get import get, request


class ActionFailedError(OSError):
    """llama-server responded that it could not save or restore."""


class SlotActions:
    """The slots of one llama-server. Each method raises OSError, also for a malformed response."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._address = host, port
        self._seconds = seconds

    async def slots(self) -> tuple[Slot, ...]:
        """Return its slots."""
        status, body = await get(
            *self._address, "/slots", seconds=self._seconds, max_bytes=MAX_BYTES
        )
        if status != 200:
            raise OSError(f"/slots returned {status}")
        try:
            return parse_slots(body)
        except ValueError as error:
            raise OSError(f"malformed response of /slots: {error}") from None

    async def save(self, slot: int, name: str, seconds: float) -> SlotFile:
        """Save a slot that is idle. llama-server defers it while the slot is busy."""
        response = await self._act(slot, "save", name, seconds)
        try:
            return slot_files.parse_saved(response)
        except ValueError as error:
            raise OSError(f"malformed response of save: {error}") from None

    async def restore(self, slot: int, name: str, seconds: float) -> SlotFile:
        """Restore a slot that is idle. Raises ActionFailedError if the file cannot be used."""
        response = await self._act(slot, "restore", name, seconds)
        try:
            return slot_files.parse_restored(response)
        except ValueError as error:
            raise ActionFailedError(f"malformed response of restore: {error}") from None

    async def _act(self, slot: int, action: str, name: str, seconds: float) -> bytes:
        status, response = await request(
            "POST",
            *self._address,
            slot_files.path(slot, action),
            seconds=seconds,
            max_bytes=slot_files.MAX_BYTES,
            body=slot_files.body(name),
        )
        if status != 200:
            text = response[:200].decode(errors="replace")
            raise ActionFailedError(f"{action} returned {status}: {text}")
        return response
