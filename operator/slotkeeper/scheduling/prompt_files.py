"""Which prompt files there are, and which one a request restores.

A prompt file is the state of a slot, saved by llama-server. A replica can use those in its own
folder, which others may share, that were written with the same model, build and context.
"""

import itertools
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, PrefixHashes
from slotkeeper.scheduling.prompt_rates import PromptRates

MAX_RESTORE_SECONDS = 5.0
"""A request waits no longer than this for a restore."""

_MAX_COMPARED = 32
"""Files with the same prefix that are compared for one request, the newest first: thousands may
begin with the same system prompt."""

_MAX_FAILED_FILES = 1024

_MIN_SHARE = 0.15
"""Of the prompt that a file must hold. llama-server uses a slot for a prompt only if a tenth of it
is the same; bytes are no exact measure of tokens."""

_HONORED = 0.25
"""Of the tokens that a restored file should have in common with a prompt."""
_HONORED_BESIDE_MEMORY = 0.7
"""Likewise, if the memory may have half of them."""

_MIN_BYTES_PER_TOKEN = 2
"""Of JSON, which has more in most languages."""

_COVERED = 0.9
"""A file with this share of a slot's tokens, of the same prompt, needs no replacement."""

_SUPERSEDED = 0.5
"""A file with this share of the tokens of a longer one, with the same beginning, is replaced by it.
A much shorter one is kept: it is read sooner, for other prompts that share only that much."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """One prompt file, as a replica's agent lists it."""

    name: str
    bytes: int
    tokens: int
    """Of the prompt and of the response to it."""
    prefixes: PrefixHashes
    """Of the request that left it in its slot."""
    compatible: str
    """What must be equal for a replica to use it; see `compatibility`."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A file to restore before a request is sent."""

    file: PromptFile
    shared: int
    """Prefixes of the request that the file holds."""
    in_memory: int
    """Those that the replica's memory held before."""
    size: int
    """Bytes of the request's body."""
    deadline: float
    """Seconds after which the request is sent anyway."""

    def is_honored(self, cached: int, computed: int) -> bool | None:
        """Whether llama-server used the file, if it found `cached` tokens and computed the others.

        None: not known, since the replica's memory held about as much. The file has at least
        `shared` prefixes of the prompt, and the memory has less than one more than `in_memory`.
        Tokens are estimated by the bytes of this very prompt; those of a system prompt may be
        longer or shorter.
        """
        if self.in_memory and self.shared < self.in_memory + 2:
            return None
        expected = PREFIX_SIZES[self.shared - 1] * (cached + computed) / self.size
        return cached >= expected * (_HONORED_BESIDE_MEMORY if self.in_memory else _HONORED)


class Outcome(Enum):
    """What became of a restore."""

    GAINED = "llama-server found tokens of the file"
    NOT_HONORED = "it did not"
    USELESS_FILE = "it did not, for the second time: the file is to be deleted"


@dataclass(frozen=True, slots=True)
class Unusable:
    """Files that cannot be restored, or that llama-server did not use after a restore."""

    reason: str
    until: float
    """When they are tried again."""


@dataclass(slots=True, eq=False)
class _Entry:
    file: PromptFile
    replicas: set[str]


class PromptFileIndex:
    """The usable files of all replicas, by the prefixes that they hold."""

    def __init__(self) -> None:
        self.rates = PromptRates()
        self.unusable: dict[str, Unusable] = {}
        """By `compatible`, why files are not restored any more."""
        self._compatible: dict[str, str] = {}  # replica -> what its files must have
        self._entries: dict[str, _Entry] = {}  # by the file's name
        self._names: dict[str, set[str]] = {}  # replica -> its files
        self._by_prefix: dict[int, dict[str, None]] = {}  # prefix -> files, the newest last

    def set_replica(self, replica: str, compatible: str, files: Iterable[PromptFile]) -> None:
        """Set all files in a replica's folder, the newest first. Others than it can use are left
        out."""
        for file in self.retain(replica, compatible, files):
            self.add(replica, file)

    def retain(
        self, replica: str, compatible: str, files: Iterable[PromptFile]
    ) -> list[PromptFile]:
        """Remove all files of a replica but these; return those to be added, the newest last.

        To add thousands at once would delay streams.
        """
        if self._compatible.get(replica) != compatible:
            self.remove_replica(replica)
            self._compatible[replica] = compatible
            self._names[replica] = set()
        usable = {
            file.name: file for file in files if file.prefixes and file.compatible == compatible
        }
        names = self._names[replica]
        for name in names - usable.keys():
            self.discard(replica, name)
        return [
            file
            for file in reversed(usable.values())
            if file.name not in names or self._entries[file.name].file != file
        ]

    def remove_replica(self, replica: str) -> None:
        """Remove a replica."""
        for name in list(self._names.get(replica, ())):
            self.discard(replica, name)
        self._names.pop(replica, None)
        self._compatible.pop(replica, None)

    def add(self, replica: str, file: PromptFile) -> None:
        """Add a file to a replica's folder. No effect if the replica cannot use it."""
        if not file.prefixes or self._compatible.get(replica) != file.compatible:
            return
        entry = self._entries.get(file.name)
        if entry is None or entry.file != file:
            # One that differs from what another replica listed has been replaced since.
            replicas = set(entry.replicas) if entry else set()
            if entry:
                self._forget(entry)
            entry = self._entries[file.name] = _Entry(file, replicas)
            for prefix in file.prefixes:
                self._by_prefix.setdefault(prefix, {})[file.name] = None
        entry.replicas.add(replica)
        self._names[replica].add(file.name)

    def discard(self, replica: str, name: str) -> None:
        """Remove a file from a replica's folder."""
        names = self._names.get(replica, set())
        if name not in names:
            return
        names.remove(name)
        entry = self._entries[name]
        entry.replicas.remove(replica)
        if not entry.replicas:
            self._forget(entry)

    def names(self, replica: str) -> Collection[str]:
        """Return the names of the files that a replica can use."""
        return frozenset(self._names.get(replica, ()))

    def longest(
        self, replica: str, prefixes: PrefixHashes, beyond: int = 0
    ) -> tuple[PromptFile, int] | None:
        """Return a replica's file that holds the most of `prefixes`, and how many.

        None if none holds more than `beyond`. Among equals, the one that has the least besides;
        then the newest.
        """
        for shared in range(len(prefixes), beyond, -1):
            names = self._by_prefix.get(prefixes[shared - 1])
            if names is None:
                continue
            entries = (
                self._entries[name] for name in itertools.islice(reversed(names), _MAX_COMPARED)
            )
            files = [entry.file for entry in entries if replica in entry.replicas]
            if files:
                return min(files, key=lambda file: len(file.prefixes)), shared
        return None

    def plan(
        self, replica: str, prefixes: PrefixHashes, size: int, cached: int, now: float
    ) -> RestorePlan | None:
        """Return what to restore for a request whose body has `size` bytes; None: nothing.

        Its replica holds the first `cached` prefixes in its memory.

        | the longest file                     | the request                        |
        |---|---|
        | holds no more than the memory        | is sent                            |
        | holds too little of the prompt       | is sent: llama-server would not use it |
        | takes longer to read than to compute | is sent, also if it takes over 5 s |
        | else                                 | is sent after the restore          |
        """
        compatible = self._compatible.get(replica)
        if not prefixes or compatible is None or self.why_unusable(compatible, now):
            return None
        found = self.longest(replica, prefixes, cached)
        if found is None:
            return None
        file, shared = found
        if _shared_bytes(file, shared) < _MIN_SHARE * size:
            return None
        compute = self.rates.compute_seconds(_gained_tokens(file, shared, cached))
        deadline = min(compute, MAX_RESTORE_SECONDS)
        if self.rates.read_seconds(file.bytes, now) >= deadline:
            self.rates.slower_at = now
            return None
        return RestorePlan(file, shared, cached, size, deadline)

    def why_unusable(self, compatible: str | None, now: float) -> str | None:
        """Return why files are neither restored nor saved; None if they are."""
        found = self.unusable.get(compatible or "")
        return found.reason if found and now < found.until else None

    def covers(self, replica: str, prefixes: PrefixHashes, tokens: int) -> bool:
        """Whether a replica has a file of the same prompt, with nearly as many tokens."""
        return any(
            entry.file.prefixes == prefixes and entry.file.tokens >= _COVERED * tokens
            for entry in self._holding(replica, prefixes)
        )

    def superseded(self, replica: str, by: PromptFile) -> list[PromptFile]:
        """Return the files of shorter versions of the same conversation."""
        found: dict[str, PromptFile] = {}
        for count in range(1, len(by.prefixes) + 1):
            for entry in self._holding(replica, by.prefixes[:count]):
                file = entry.file
                if (
                    file.name != by.name
                    and file.prefixes == by.prefixes[:count]
                    and _SUPERSEDED * by.tokens <= file.tokens <= by.tokens
                ):
                    found[file.name] = file
        return list(found.values())

    def _holding(self, replica: str, prefixes: PrefixHashes) -> list[_Entry]:
        names = self._by_prefix.get(prefixes[-1], {}) if prefixes else {}
        entries = (self._entries[name] for name in itertools.islice(reversed(names), _MAX_COMPARED))
        return [entry for entry in entries if replica in entry.replicas]

    def _forget(self, entry: _Entry) -> None:
        name = entry.file.name
        del self._entries[name]
        for prefix in entry.file.prefixes:
            names = self._by_prefix[prefix]
            names.pop(name, None)
            if not names:
                del self._by_prefix[prefix]


def _shared_bytes(file: PromptFile, shared: int) -> float:
    """Return how many bytes of a request a file holds at least.

    Prefixes leave out the settings, such as tools, and what follows the last one. The tokens of a
    file count both, if the request has all of its prefixes.
    """
    size = PREFIX_SIZES[shared - 1]
    if shared == len(file.prefixes):
        return max(size, file.tokens * _MIN_BYTES_PER_TOKEN)
    return size


def _gained_tokens(file: PromptFile, shared: int, cached: int) -> float:
    """Estimate the tokens that need not be computed, from the sizes of the prefixes."""
    held = len(file.prefixes)
    tokens = file.tokens * PREFIX_SIZES[shared - 1] / PREFIX_SIZES[held - 1]
    return tokens - (tokens * PREFIX_SIZES[cached - 1] / PREFIX_SIZES[shared - 1] if cached else 0)


class RestoreRecord:
    """Whether restored files are honored, and what they saved.

    | failures in a row              | what follows                       |
    |---|---|
    | 3, and no file was ever used   | files are not restored for a day   |
    | 1 more after this day          | likewise                           |
    | 20                             | files are not restored for 10 min  |
    | 2 of one file                  | it is deleted                      |

    A model whose files are never used fails from the first one on. Where some were used, further
    failures are of the requests or of old files: a template with the date makes other prompts of
    the same requests at midnight. A client can cause failures too, by two prompts with equal
    hashes, and must not end the restores of all others for ever.
    """

    _MAX_FAILURES = 3
    _NEVER_HONORED_SECONDS = 86400.0
    _MAX_FAILURES_ONCE_HONORED = 20
    _PAUSE_SECONDS = 600.0

    def __init__(self, index: PromptFileIndex) -> None:
        self._index = index
        self._failures: dict[str, int] = {}  # in a row, by `compatible`
        self._failed_files: dict[str, None] = {}  # since each was used last, the oldest first
        self._honored: set[str] = set()  # `compatible` of which a file was used
        self._minutes: deque[tuple[int, int]] = deque(maxlen=60)  # minute -> tokens

    def record(self, plan: RestorePlan, cached: int, computed: int, now: float) -> Outcome:
        """Record a restore whose request found `cached` tokens."""
        file = plan.file
        honored = plan.is_honored(cached, computed)
        if honored is not False:
            if honored:
                self._honored.add(file.compatible)
                self._failures.pop(file.compatible, None)
                self._failed_files.pop(file.name, None)
            self._add(min(cached, file.tokens), now)
            return Outcome.GAINED
        self._count_failure(file.compatible, now)
        if file.name in self._failed_files:
            del self._failed_files[file.name]
            return Outcome.USELESS_FILE
        self._failed_files[file.name] = None
        if len(self._failed_files) > _MAX_FAILED_FILES:
            del self._failed_files[next(iter(self._failed_files))]
        return Outcome.NOT_HONORED

    def _count_failure(self, compatible: str, now: float) -> None:
        failures = self._failures[compatible] = self._failures.get(compatible, 0) + 1
        reason = f"llama-server did not use {failures} restored prompts in a row"
        if compatible in self._honored:
            if failures >= self._MAX_FAILURES_ONCE_HONORED:
                del self._failures[compatible]
                self._index.unusable[compatible] = Unusable(reason, now + self._PAUSE_SECONDS)
        elif failures >= self._MAX_FAILURES:
            self._index.unusable[compatible] = Unusable(reason, now + self._NEVER_HONORED_SECONDS)

    def tokens_last_hour(self, now: float) -> int:
        """Return the tokens that were found in restored files, in the last hour."""
        return sum(tokens for minute, tokens in self._minutes if minute > now // 60 - 60)

    def _add(self, tokens: int, now: float) -> None:
        minute = int(now // 60)
        if self._minutes and self._minutes[-1][0] == minute:
            tokens += self._minutes.pop()[1]
        self._minutes.append((minute, tokens))
