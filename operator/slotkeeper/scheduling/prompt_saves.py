"""Which slots hold a prompt that is worth a file, and when it is saved."""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from slotkeeper.llamacpp.slots import Slot
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.prompt_files import PromptFileIndex

IDLE_SECONDS = 5.0
"""A slot that is idle for this long is saved, so that a crash costs little."""
WRITE_BYTES_PER_MINUTE = 2**30
"""Of one replica. A prompt of 8,192 tokens of an 8B model has 1 GiB."""
MAX_PAUSE_SECONDS = 0.1
"""For which a save may pause the streams of other slots: about a decode step. A longer one waits
until its replica has processed nothing for a while."""
IDLE_PER_SAVE_SECOND = 10.0
"""A save cannot be interrupted. A replica that was idle for ten times as long seldom gets a request
in it."""
MAX_IDLE_SECONDS = 60.0
"""For which a replica is idle before any save."""

_MAX_COUNTED = 4096


class SaveReason(StrEnum):
    """Why a slot was saved."""

    REPEATED = "repeated"
    """Its prompt was sent more than once."""
    IDLE = "idle"
    """It was idle."""
    ENDING = "ending"
    """Its replica is being deleted."""


@dataclass(frozen=True, slots=True, eq=False)
class Completed:
    """A completed request whose slot is to be found."""

    prefixes: PrefixHashes
    computed: int
    """Tokens of its prompt, without those that were found in the cache."""
    cached: int
    generated: int
    at: float
    restored: bool = False
    """A file was restored for it."""


@dataclass(slots=True, eq=False)
class SlotContent:
    """The prompt that an idle slot holds."""

    slot: Slot
    """As /slots reported it after the request: if it still does, no other request used it."""
    prefixes: PrefixHashes
    used_at: float
    seen: int = 1
    """Requests with this prompt, as of the last decision."""
    saved: bool = False
    """There is a file of it, as of the last decision."""


def find_slots(
    completed: Sequence[Completed], slots: Iterable[Slot], known: Mapping[int, SlotContent]
) -> list[tuple[Completed, Slot]]:
    """Return the slots whose prompt is known for certain, with the last request that has it.

    llama-server does not report the slot of a response. It is the idle slot with as many tokens as
    the request's prompt and response together, or one less, since the last token that it generates
    is not processed. Some builds keep the numbers of the response too. A slot that has processed
    no task since it was last reported is none. Requests with the same prompt may have used the same
    slot, one after the other; of those with different prompts, the slot is not known.
    """
    fitting = {
        slot: [each for each in completed if _fits(each, slot)]
        for slot in slots
        if not slot.is_processing
        and slot.task is not None
        and not (slot.id in known and known[slot.id].slot.task == slot.task)
    }
    found: list[tuple[Completed, Slot]] = []
    for slot, requests in fitting.items():
        prompts = {each.prefixes for each in requests}
        rivals = sum(any(each in requests for each in others) for others in fitting.values())
        if len(prompts) == 1 and rivals <= len(requests):
            found.append((max(requests, key=lambda each: each.at), slot))
    return found


def _fits(completed: Completed, slot: Slot) -> bool:
    expected = completed.computed, completed.cached, completed.generated
    reported = slot.processed, slot.cached, slot.decoded
    if any(reported) and reported != expected:
        return False
    return sum(expected) - 1 <= slot.prompt_tokens <= sum(expected)


class SeenPrompts:
    """How often each of the last prompts was sent."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()

    def record(self, prefixes: PrefixHashes) -> None:
        """Record a request with these prefixes."""
        for prefix in prefixes:
            self._counts[prefix] = self._counts.get(prefix, 0) + 1
            self._counts.move_to_end(prefix)
        while len(self._counts) > _MAX_COUNTED:
            self._counts.popitem(last=False)

    def count(self, prefixes: PrefixHashes) -> int:
        """Return how many of the last requests had these prefixes, and maybe further ones."""
        return self._counts.get(prefixes[-1], 0)


class WriteBudget:
    """Bytes that may be written to the files of one replica."""

    def __init__(self, now: float) -> None:
        self._left = float(WRITE_BYTES_PER_MINUTE)
        self._at = now

    def allows(self, size: float, now: float) -> bool:
        """Whether a file of this size may be written. A larger one than the budget needs all."""
        self._refill(now)
        return self._left >= min(size, WRITE_BYTES_PER_MINUTE)

    def spend(self, size: int, now: float) -> None:
        """Record a file that was written."""
        self._refill(now)
        self._left -= size

    def _refill(self, now: float) -> None:
        gained = (now - self._at) / 60 * WRITE_BYTES_PER_MINUTE
        self._left = min(WRITE_BYTES_PER_MINUTE, self._left + gained)
        self._at = now


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What runs on a replica, as the dispatcher counts it."""

    slots: int
    busy: int
    queued: int
    """Requests without a slot, of the whole server."""


def next_save(
    contents: Collection[SlotContent],
    index: PromptFileIndex,
    replica: str,
    load: ReplicaLoad,
    budget: WriteBudget,
    now: float,
) -> tuple[SlotContent, SaveReason] | None:
    """Return the slot of a running replica to save now, if any. Marks those that have a file.

    | the replica                                   | a prompt            | is saved        |
    |---|---|---|
    | any                                           | that has a file     | no              |
    | requests are queued, or no slot is free       | any                 | no              |
    | its writes of the last minute are at the limit | any                | no              |
    | others run                                    | takes over 0.1 s    | no              |
    | has not been idle for 5 s, and for ten times as long as the save, or 60 s | over 0.1 s | no |
    | else                                          | seen twice          | yes             |
    | else                                          | idle for 5 s        | yes             |

    How long the first save takes is not known: it is made as soon as nothing runs.
    """
    if load.queued or load.busy >= load.slots:
        return None
    rates = index.rates
    last_used = max((each.used_at for each in contents), default=now)
    for content in worth_saving(contents, index, replica):
        tokens = content.slot.prompt_tokens
        pause = rates.write_seconds(tokens)
        if pause > MAX_PAUSE_SECONDS:
            needed = min(max(IDLE_SECONDS, IDLE_PER_SAVE_SECOND * pause), MAX_IDLE_SECONDS)
            if load.busy or (math.isfinite(pause) and now - last_used < needed):
                continue
        if not budget.allows(tokens * (rates.bytes_per_token or 0), now):
            continue
        if content.seen > 1:
            return content, SaveReason.REPEATED
        if now - content.used_at >= IDLE_SECONDS:
            return content, SaveReason.IDLE
    return None


def worth_saving(
    contents: Collection[SlotContent], index: PromptFileIndex, replica: str
) -> list[SlotContent]:
    """Return the prompts without a file, those that were sent most often first, then the last."""
    for content in contents:
        content.saved = index.covers(replica, content.prefixes, content.slot.prompt_tokens)
    return sorted(
        (each for each in contents if not each.saved),
        key=lambda each: (each.seen, each.used_at),
        reverse=True,
    )


def slot_to_restore_into(slots: Iterable[Slot], known: Mapping[int, SlotContent]) -> Slot | None:
    """Return the idle slot whose content is worth the least; None if all are busy.

    An unused slot, else one whose prompt is not known, else one that has a file, else the one whose
    prompt was sent least often, the longest ago. A restore overwrites what the slot holds.
    """

    def worth(slot: Slot) -> tuple[int, int, float]:
        content = known.get(slot.id)
        if content is None or content.slot.task != slot.task:
            return (1 if slot.prompt_tokens else 0), 0, 0.0
        return (2 if content.saved else 3), content.seen, content.used_at

    return min((each for each in slots if not each.is_processing), key=worth, default=None)
