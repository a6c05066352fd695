"""Files as llama-server writes them when it saves a slot, and their folder."""

import os
import struct
from pathlib import Path
from typing import Any

from slotkeeper.prompt_files.state_file import MAGIC, PACKED

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS

IDENTITY = "0123456789abcdef"
COMPATIBLE = "c" * 32


def name(number: int) -> str:
    """The name of a file."""
    return f"{number:032x}"


def state(tokens: int = 10, size: int = 1000, *, fill: bytes = b"s", packed: bool = True) -> bytes:
    """The state of a slot: its tokens, and what follows them up to `size`."""
    numbers = [*range(tokens)]
    if packed:
        numbers = [PACKED, 1, tokens, *numbers, 0]
    head = struct.pack(f"=3I{len(numbers)}I", MAGIC, 4, len(numbers), *numbers)
    return head + fill * (size - len(head))


def announced(content: bytes, tokens: int = 10, **changes: Any) -> dict[str, Any]:
    """What a balancer states of a file."""
    tree = {"bytes": len(content), "tokens": tokens, "prefixes": [1 << 63, -5]}
    return tree | {"compatible": COMPATIBLE} | changes


def write_part(folder: Path, part: str, content: bytes, now_ns: int | None = None) -> Path:
    """Write what llama-server writes when it is told to save to NAME.part."""
    path = folder / part
    path.write_bytes(content)
    if now_ns is not None:
        os.utime(path, ns=(now_ns, now_ns))
    return path
