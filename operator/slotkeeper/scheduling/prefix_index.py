"""Which replica's cache holds the beginning of a prompt: a guess from bytes that were sent there.

llama-server keeps what it has computed for the prompts of late, in its slots and in its prompt
cache, and computes only what is new of a prompt that begins as one of those. A wrong guess costs
a prompt computed again and nothing else, so that cheap beats exact throughout.
"""

import re
import zlib
from collections import OrderedDict
from collections.abc import Collection, Mapping
from types import MappingProxyType

PrefixHashes = tuple[int, ...]
"""A hash of each beginning of a prompt, the shortest first; the size is in the hash."""

PREFIX_SIZES = tuple(1024 << step for step in range(7))
"""Bytes, 1 KiB to 64 KiB. Shorter prompts are computed in no time, and what two prompts share
beyond 64 KiB they have mostly been sharing since before it. Doubling, since two conversations with
the same system prompt differ only from its end on, and a rung must fall between there and here."""

_SEARCHED = 256 * 1024
"""Where the prompt must begin, so that the look at a body of megabytes takes microseconds."""

SCANNED_BYTES = _SEARCHED + PREFIX_SIZES[-1]
"""Bytes at a body's beginning that `ladder` looks at; it may be called with no more."""

# Inside of a JSON string each quote has a backslash before it, so that no text that a client
# sends looks like one of these keys.
_PROMPT = re.compile(rb'"(?:messages|prompt|input|input_prefix)"[ \t\r\n]*:[ \t\r\n]*')


def prefix_hashes(body: bytes) -> PrefixHashes:
    """The hashes of the prompt's beginnings, for a request's JSON `body`; () where it is short.

    The prompt is what follows the first key that may hold one. Found by search and not by
    parsing: 5 MB of JSON would stop every stream for 24 ms. Chained crc32: 64 KiB cost 20 µs,
    and 85 with blake2b, where a whole request costs 32. Who makes two prompts collide has
    misled the guess about his own request.
    """
    if len(body) < PREFIX_SIZES[0]:
        return ()
    key = _PROMPT.search(body, 0, _SEARCHED)
    if key is None:
        return ()
    prompt = memoryview(body)[key.end() :]
    hashes: list[int] = []
    crc = begin = 0
    for end in PREFIX_SIZES:
        if len(prompt) < end:
            break
        crc = zlib.crc32(prompt[begin:end], crc)
        hashes.append(end << 32 | crc)
        begin = end
    return tuple(hashes)


class PrefixIndex:
    """What each replica's cache is taken to hold: the last prompts that were sent to it."""

    def __init__(self) -> None:
        self._holders: dict[int, dict[str, int]] = {}  # hash -> replica -> its prompts with it
        self._prompts: dict[
            str, OrderedDict[int, PrefixHashes]
        ] = {}  # by their last hash, oldest first

    def replicas_with(self, prompt: PrefixHashes) -> Collection[str]:
        """The replicas that hold the longest beginning of `prompt` that any of them holds."""
        for rung in reversed(prompt):
            holders = self._holders.get(rung)
            if holders:
                return holders
        return ()

    def remember(self, replica: str, prompt: PrefixHashes, capacity: int) -> None:
        """`prompt` was sent to `replica`, whose cache holds the last `capacity` prompts."""
        if not prompt:
            return
        prompts = self._prompts.setdefault(replica, OrderedDict())
        for rung in prompt:
            # A prompt that has grown takes the place of what it was.
            if shorter := prompts.pop(rung, None):
                self._drop(replica, shorter)
        prompts[prompt[-1]] = prompt
        for rung in prompt:
            holders = self._holders.setdefault(rung, {})
            holders[replica] = holders.get(replica, 0) + 1
        while len(prompts) > capacity:
            self._drop(replica, prompts.popitem(last=False)[1])

    def forget(self, replica: str) -> None:
        """The replica's cache may be empty."""
        for prompt in self._prompts.pop(replica, {}).values():
            self._drop(replica, prompt)

    @property
    def remembered(self) -> Mapping[str, int]:
        """How many prompts are remembered, by replica."""
        return MappingProxyType({name: len(each) for name, each in self._prompts.items()})

    def _drop(self, replica: str, prompt: PrefixHashes) -> None:
        for rung in prompt:
            holders = self._holders[rung]
            holders[replica] -= 1
            if not holders[replica]:
                del holders[replica]
                if not holders:
                    del self._holders[rung]
