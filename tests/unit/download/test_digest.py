"""The digest of blocks is that of their bytes, whatever their sizes."""

import hashlib
from random import Random
from threading import active_count

from slotkeeper.download.digest import INLINE_BYTES, Digest


def test_it_is_the_sha256_of_all_blocks() -> None:
    random = Random(1)
    sizes = [0, 1, INLINE_BYTES - 1, INLINE_BYTES, 5 * INLINE_BYTES, 7, 3 * INLINE_BYTES]
    blocks = [random.randbytes(size) for size in sizes]
    digest = Digest()

    for block in blocks:
        digest.update(block)

    assert digest.hexdigest() == hashlib.sha256(b"".join(blocks)).hexdigest()
    digest.close()


def test_a_block_can_be_overwritten_after_the_next_call() -> None:
    buffers = [bytearray(4 * INLINE_BYTES), bytearray(4 * INLINE_BYTES)]
    digest, expected = Digest(), hashlib.sha256()
    for number in range(64):
        block = buffers[number % 2]
        block[:] = bytes([number]) * len(block)
        digest.update(memoryview(block))
        expected.update(block)

    assert digest.hexdigest() == expected.hexdigest()
    digest.close()


def test_the_thread_ends() -> None:
    threads = active_count()
    digest = Digest()
    digest.update(bytes(INLINE_BYTES))
    assert active_count() == threads + 1

    digest.close()
    digest.close()

    assert active_count() == threads
