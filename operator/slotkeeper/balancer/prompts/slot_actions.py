"""Saving and restoring the slots of one llama-server."""

from slotkeeper.balancer.llama_slots import read_slots
from slotkeeper.llamacpp import slot_files
from slotkeeper.llamacpp.slot_files import SlotFile
from slotkeeper.llamacpp.slots import Slot
from slotkeeper.wire.http_get import request


class ActionFailedError(OSError):
    """llama-server responded that it could not save or restore."""


class SlotActions:
    """The slots of one llama-server. Each method raises OSError, also for a malformed response."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._address = host, port
        self._seconds = seconds

    async def slots(self) -> tuple[Slot, ...]:
        """Return its slots."""
        return await read_slots(*self._address, self._seconds)

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
