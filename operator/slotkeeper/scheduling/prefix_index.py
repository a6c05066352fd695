"""Estimates which replica's cache holds the prefix of a prompt, from the bytes sent to each.

llama-server keeps the KV cache of recent prompts, in its slots and in its prompt cache, and
computes only the new part of a prompt that starts like one of those. A wrong estimate costs one
more prompt computation and nothing else, so a cheap estimate is better than an exact one.
"""

import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

PrefixHashes = tuple[int, ...]
"""A hash of each prefix of a prompt, the shortest first; a hash includes the prefix's size."""

PREFIX_SIZES = tuple(1024 << step for step in range(7))
"""Bytes, 1 KiB to 64 KiB. Shorter prompts take next to no time to compute, and longer common
prefixes are mostly recognized by their first 64 KiB. Each size is twice the one before: two
conversations with the same system prompt differ only after it, and a size must lie between the end
of the system prompt and the end of the conversation."""


def prefix_hashes(prompt: bytes, settings: Iterable[bytes] = ()) -> PrefixHashes:
    """Return the hashes of a prompt's prefixes; () for a short prompt.

    `prompt` is JSON as it was sent, or the beginning of it. `settings` change the prompt from its
    first token on, such as tools: each hash depends on all of them.

    The hash is a chained crc32: 64 KiB take 20 µs, and 85 µs with blake2b, where a whole request
    takes 32 µs. A client that makes two prompts collide spoils the estimate for its own
    requests. It can also have the file of a prompt that it knows replaced, which is then computed
    again: llama-server compares the tokens themselves.
    """
    if len(prompt) < PREFIX_SIZES[0]:
        return ()
    crc = begin = 0
    for setting in settings:
        crc = zlib.crc32(setting, crc)
    hashes: list[int] = []
    view = memoryview(prompt)
    for end in PREFIX_SIZES:
        if len(view) < end:
            break
        crc = zlib.crc32(view[begin:end], crc)
        hashes.append(end << 32 | crc)
        begin = end
    return tuple(hashes)


class PrefixIndex:
    """The assumed contents of each replica's cache: the last prompts that were sent to it."""

    def __init__(self) -> None:
        self._replicas: dict[int, dict[str, int]] = {}  # hash -> replica -> its prompts with it
        self._prompts: dict[
            str, OrderedDict[int, PrefixHashes]
        ] = {}  # replica -> prompts by their last hash, oldest first

    def replicas_with(self, prefixes: PrefixHashes) -> Collection[str]:
        """Return the replicas that hold the longest of `prefixes` that any replica holds."""
        for prefix in reversed(prefixes):
            replicas = self._replicas.get(prefix)
            if replicas:
                return replicas
        return ()

    def held_by(self, replica: str, prefixes: PrefixHashes) -> int:
        """Return how many of `prefixes` a replica holds."""
        for count in range(len(prefixes), 0, -1):
            if replica in self._replicas.get(prefixes[count - 1], ()):
                return count
        return 0

    def record(self, replica: str, prefixes: PrefixHashes, capacity: int) -> None:
        """Record a prompt sent to `replica`, whose cache holds the last `capacity` prompts."""
        if not prefixes:
            return
        prompts = self._prompts.setdefault(replica, OrderedDict())
        for prefix in prefixes:
            # A conversation that has grown replaces its shorter version.
            if shorter := prompts.pop(prefix, None):
                self._drop(replica, shorter)
        prompts[prefixes[-1]] = prefixes
        for prefix in prefixes:
            replicas = self._replicas.setdefault(prefix, {})
            replicas[replica] = replicas.get(replica, 0) + 1
        while len(prompts) > capacity:
            self._drop(replica, prompts.popitem(last=False)[1])

    def remove(self, replica: str) -> None:
        """Remove all prompts of a replica, whose cache may be empty."""
        for prefixes in self._prompts.pop(replica, {}).values():
            self._drop(replica, prefixes)

    @property
    def prompt_counts(self) -> Mapping[str, int]:
        """Number of recorded prompts by replica."""
        return MappingProxyType({name: len(each) for name, each in self._prompts.items()})

    def _drop(self, replica: str, prefixes: PrefixHashes) -> None:
        for prefix in prefixes:
            replicas = self._replicas[prefix]
            replicas[replica] -= 1
            if not replicas[replica]:
                del replicas[replica]
                if not replicas:
                    del self._replicas[prefix]
