"""Randomly damaged messages: the same ones for the same seed."""

import random
from collections.abc import Iterator, Sequence

_SIGNIFICANT = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\x00", b"\x7f", b"\xff",
    b"0", b"0\r\n\r\n", b"2\r\nhi\r\n", b"Content-Length: 2\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:", b"Content-Length:", b"chunked",
    b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Host: a\r\n",
    b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1", b"http://a", b"GET /x HTTP/1.1\r\n",
    b"HEAD", b"#", b"?", b"\r\n ", b"ffffffffffffffff", b"+", b"-", b"0x", b'"',
)  # fmt: skip


def mutants(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` messages, each made from one of `seeds` by up to six changes."""
    rng = random.Random(seed)
    for _ in range(count):
        message = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
            message = _changed(message, seeds, rng)
        yield message


def cuts(message: bytes, rng: random.Random) -> list[bytes]:
    """Split `message` into up to four pieces."""
    places = sorted(rng.randrange(len(message) + 1) for _ in range(rng.randrange(4)))
    starts = [0, *places]
    ends = [*places, len(message)]
    return [message[start:end] for start, end in zip(starts, ends, strict=True)]


def _changed(message: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(message) + 1)
    to = min(len(message), at + rng.choice((1, 1, 2, 5, 20, 100)))
    other = rng.choice(seeds)
    lines = message.split(b"\r\n")
    lines.insert(rng.randrange(len(lines)), lines.pop(rng.randrange(len(lines))))
    flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in message[at : at + 1])
    return rng.choice(
        (
            message[:at] + flipped + message[at + 1 :],
            message[:at] + bytes([rng.randrange(256)]) + message[at + 1 :],
            message[:at] + rng.choice(_SIGNIFICANT) + message[at:],
            message[:at] + message[to:],
            message[:to] + message[at:],
            message[:at] + other[rng.randrange(len(other) + 1) :],
            message + other,
            b"\r\n".join(lines),
        )
    )
