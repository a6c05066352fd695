"""Reading the slots of one llama-server."""

from slotkeeper.llamacpp.slots import MAX_BYTES, Slot, parse_slots
from slotkeeper.wire.http_get import get


async def read_slots(host: str, port: int, seconds: float) -> tuple[Slot, ...]:
    """Return its slots, within these seconds. Raises OSError, also for a malformed response."""
    status, body = await get(host, port, "/slots", seconds=seconds, max_bytes=MAX_BYTES)
    if status != 200:
        raise OSError(f"/slots returned {status}")
    try:
        return parse_slots(body)
    except ValueError as error:
        raise OSError(f"malformed response of /slots: {error}") from None
