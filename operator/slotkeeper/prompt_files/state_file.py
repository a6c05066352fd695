"""The beginning of the file that llama-server writes when it saves a slot.

`llama_state_seq_save_file` of llama.cpp writes, as 32-bit numbers of the machine's byte order,

    magic, version, n, n numbers, the state

where the n numbers are the tokens, or since 2026 a packed list (`server_tokens::serialize`):

    -1, version of the list, number of tokens, the tokens, media

llama-server checks a file again when it restores it. This check is for files that were written in
part, or by something else.

Files with a plain list are rejected. The builds that write these do not remove the checkpoints of
the prompt that was in the slot before: with sliding windows or a recurrent state, a part of a
request's state would then be that of another prompt.
"""

import struct

MAGIC = 0x67677371
"""`ggsq`."""

PACKED = 0xFFFFFFFF
PACKED_VERSION = 1
PACKED_NUMBERS = 4
"""Of a packed list, besides its tokens: the three before them, and the number of media."""

_HEAD = struct.Struct("=6I")
HEAD_BYTES = _HEAD.size

_NUMBER_BYTES = 4
_FIXED_BYTES = 3 * _NUMBER_BYTES

_MAX_VERSION = 99
"""The version is 4 in 2026. A later one is likely to begin in the same way."""


def find_problem(head: bytes, size: int, tokens: int) -> str | None:
    """Return why a file is not the state of a slot with so many tokens; None if it is one.

    `head` are its first HEAD_BYTES, `size` is its size.
    """
    if len(head) < HEAD_BYTES:
        return f"only {len(head)} bytes"
    magic, version, numbers, first, list_version, count = _HEAD.unpack(head[:HEAD_BYTES])
    if magic != MAGIC or not 1 <= version <= _MAX_VERSION:
        return f"no state of a slot: magic {magic:08x}, version {version}"
    if _FIXED_BYTES + numbers * _NUMBER_BYTES >= size:
        return f"{numbers} tokens announced, which exceed the file"
    if first != PACKED:
        return "a plain list of tokens: this build of llama-server does not restore slots safely"
    if list_version == PACKED_VERSION and count != tokens:
        return f"{count} tokens instead of {tokens}"
    enough = numbers >= tokens + PACKED_NUMBERS
    return None if enough else f"{numbers} numbers, too few for {tokens} tokens"
