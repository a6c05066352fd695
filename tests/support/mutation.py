"""Messages that were damaged by chance: the same ones for the same seed."""

import random
from collections.abc import Iterator, Sequence

_TELLING = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\x00", b"\x7f", b"\xff",
    b"0", b"0\r\n\r\n", b"2\r\nhi\r\n", b"Content-Length: 2\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:", b"Content-Length:", b"chunked",
    b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Host: a\r\n",
    b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1", b"http://a", b"GET /x HTTP/1.1\r\n",
    b"HEAD", b"#", b"?", b"\r\n ", b"ffffffffffffffff", b"+", b"-", b"0x", b'"',
)  # fmt: skip


def mutants(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` messages, each made of one of `seeds` by up to six changes."""
    chance = random.Random(seed)
    for _ in range(count):
        message = chance.choice(seeds)
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
            message = _changed(message, seeds, chance)
        yield message


def cuts(message: bytes, chance: random.Random) -> list[bytes]:
    """`message` in up to four pieces."""
    places = sorted(chance.randrange(len(message) + 1) for _ in range(chance.randrange(4)))
    starts = [0, *places]
    ends = [*places, len(message)]
    return [message[start:end] for start, end in zip(starts, ends, strict=True)]


def _changed(message: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(message) + 1)
    to = min(len(message), at + chance.choice((1, 1, 2, 5, 20, 100)))
    other = chance.choice(seeds)
    lines = message.split(b"\r\n")
    lines.insert(chance.randrange(len(lines)), lines.pop(chance.randrange(len(lines))))
    flipped = bytes(byte ^ 1 << chance.randrange(8) for byte in message[at : at + 1])
    return chance.choice(
        (
            message[:at] + flipped + message[at + 1 :],
            message[:at] + bytes([chance.randrange(256)]) + message[at + 1 :],
            message[:at] + chance.choice(_TELLING) + message[at:],
            message[:at] + message[to:],
            message[:to] + message[at:],
            message[:at] + other[chance.randrange(len(other) + 1) :],
            message + other,
            b"\r\n".join(lines),
        )
    )
