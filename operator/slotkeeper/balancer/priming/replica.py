"""What one new replica computes before it gets requests."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from slotkeeper.balancer.priming.beginnings import Beginning
from slotkeeper.balancer.priming.llama import PrimedLlama, RejectedError
from slotkeeper.llamacpp.slots import Slot
from slotkeeper.scheduling import PrefixHashes
from slotkeeper.scheduling.priming import (
    Action,
    Primed,
    Tokens,
    common_beginning,
    next_chunk,
    place,
    replaced,
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Rate:
    """Tokens that a replica computes in a second, as of the last chunk."""

    tokens_per_second: float | None = None

    def record(self, tokens: int, seconds: float) -> None:
        """Record a chunk."""
        if tokens and seconds > 0:
            self.tokens_per_second = tokens / seconds


@dataclass(slots=True)
class ReplicaPriming:
    """Computes beginnings, one after the other: the slots share the same processor."""

    name: str
    llama: PrimedLlama
    rate: Rate
    has_cache: bool
    """llama-server keeps prompts in RAM that its slots do not hold."""
    now: Callable[[], float]
    is_restorable: Callable[[Beginning], Awaitable[bool]]
    on_computed: Callable[[int], None]
    """Called with the number of tokens after each chunk."""
    on_primed: Callable[[Beginning], None]
    """Called when a beginning is computed."""
    current: Beginning | None = None
    is_ending: bool = False
    """It ends after the current chunk."""
    is_computing: bool = False
    """llama-server may be computing, also after this was canceled."""
    results: list[tuple[Beginning, str]] = field(default_factory=list)
    """Beginnings that were tried, and why one cannot be computed; empty if it can."""
    _primed: list[Primed] = field(default_factory=list)
    _goes_back: bool | None = None
    """llama-server can compute the end of a prompt again, and not only all of it. None: not known.
    Not without checkpoints, for a model with a recurrent state."""

    async def run(self, beginnings: Sequence[Beginning]) -> None:
        """Compute the beginnings, the first one first.

        Nothing is computed where a slot holds something already, as when another balancer has
        become the leader. Raises OSError if llama-server does not respond.
        """
        slots = await self.llama.slots()
        if any(slot.is_processing or slot.prompt_tokens for slot in slots):
            return
        for beginning in beginnings:
            self.current = beginning
            if await self.is_restorable(beginning):
                continue
            try:
                if not await self._prime(beginning, slots):
                    break
            except RejectedError as error:
                _log.warning("replica %s: cannot prime %s: %s", self.name, beginning.name, error)
                self.results.append((beginning, str(error)))
            else:
                self.results.append((beginning, ""))
        await self._use_again()

    async def _prime(self, beginning: Beginning, slots: Sequence[Slot]) -> bool:
        """Compute a beginning where it is worth it; return whether further ones may be computed."""
        tokens = await self._tokens(beginning)
        context = min(slot.n_ctx for slot in slots)
        if len(tokens) >= context > 0:
            raise RejectedError(f"{len(tokens)} tokens, and a slot has {context}")
        numbers = (slot.id for slot in slots)
        placed = place(tokens, self._primed, numbers, has_cache=self.has_cache)
        if placed.action is Action.COMPUTE:
            await self._compute(tokens, placed.slot)
            if not self.is_ending:
                self._primed = replaced(self._primed, Primed(tokens, placed.slot))
                self.on_primed(beginning)
        return placed.action is not Action.STOP and not self.is_ending

    def is_sought(self, prefixes: PrefixHashes) -> bool:
        """Whether a request with these prefixes may begin with what is being computed."""
        current = self.current.prefixes if self.current and self.is_computing else ()
        return bool(prefixes) and any(each[0] == prefixes[0] for each in current)

    async def _tokens(self, beginning: Beginning) -> Tokens:
        first, second = [await self.llama.tokens(prompt) for prompt in beginning.prompts]
        return common_beginning(first, second)

    async def _compute(self, tokens: Tokens, slot: int | None) -> None:
        done = 0
        while done < len(tokens) and not self.is_ending:
            done = next_chunk(done, len(tokens), self.rate.tokens_per_second)
            began = self.now()
            computed = await self._compute_once(tokens[:done], slot)
            self.rate.record(computed, self.now() - began)
            if self._goes_back is None and not self.is_ending:
                self._goes_back = await self._compute_once(tokens[:done], slot) < computed

    async def _compute_once(self, tokens: Tokens, slot: int | None) -> int:
        self.is_computing = True
        computed = await self.llama.compute(tokens, slot)
        self.is_computing = False
        self.on_computed(computed)
        return computed

    async def _use_again(self) -> None:
        """Let the first one be the most recently used: llama-server overwrites the others first."""
        in_slots = [each for each in self._primed if each.slot is not None]
        if len(in_slots) > 1 and self._goes_back and not self.is_ending:
            for each in reversed(in_slots):
                await self._compute_once(each.tokens, each.slot)
