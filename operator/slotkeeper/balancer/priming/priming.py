"""Priming of new replicas, as the balancer that is the leader does it."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from slotkeeper.api.demand_report import PrimeReport
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.balancer.priming.beginnings import PATHS, Beginning, from_learned, from_source
from slotkeeper.balancer.priming.folder import Found
from slotkeeper.balancer.priming.llama import PrimedLlama
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.priming.replica import Rate, ReplicaPriming
from slotkeeper.balancer.priming_metrics import Abort, PrimingMetrics
from slotkeeper.balancer.prompts.prompt_files import PromptFiles
from slotkeeper.balancer.upstream.replicas import AfterPriming
from slotkeeper.error_text import describe
from slotkeeper.scheduling import Dispatcher, PrefixHashes
from slotkeeper.scheduling.learned_prompts import MAX_BODY_BYTES, LearnedPrompts
from slotkeeper.scheduling.priming import CHUNK_SECONDS
from slotkeeper.wire.message import Request

_log = logging.getLogger(__name__)

_HOUR = 3600.0
_COUNT_SECONDS = 60.0
"""For which the number of learned beginnings is not counted again."""
_LAST_CHUNK_SECONDS = 2 * CHUNK_SECONDS
_MAX_COMPARED = 16
"""Queued requests that are compared with what is being computed."""
_MAX_SUSPECTS = 64
_MAX_ENDS = 2
"""A process may have ended for another reason once."""
_ENDED_TWICE = "llama-server ended with it twice"
_TRIED = "new replicas compute the prompts before they get requests"
_UNTRIED = "the next new replica computes the prompts before it gets requests"
_MAX_SHOWN = 5
"""Problems in a message."""
_KINDS = {
    b"/completion": PromptKind.TEXT,
    b"/completions": PromptKind.TEXT,
    PATHS[PromptKind.TEXT]: PromptKind.TEXT,
    b"/chat/completions": PromptKind.CHAT,
    PATHS[PromptKind.CHAT]: PromptKind.CHAT,
}
"""Paths whose requests are learned: llama-server shows the prompt of no other one."""
_SEVERAL_PROMPTS = re.compile(rb'"prompt"[ \t\r\n]*:[ \t\r\n]*(?:\[[ \t\r\n]*["[{]|\{)')
"""Or one with images. They would be learned instead of what can be computed."""


class Priming:
    """Computes beginnings on new replicas, and learns which ones requests share."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        metrics: PrimingMetrics,
        options: PrimingOptions,
        files: PromptFiles | None = None,
        llama: Callable[[str, int], PrimedLlama] = PrimedLlama,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._options = options
        self._files = files
        self._llama = llama
        self._loop = asyncio.get_running_loop()
        self._prompts: Sequence[SpecPrompt] = ()
        self._inline: list[Beginning] = []
        self._mounted: list[Beginning] = []
        self._inline_problems: list[str] = []
        self._mounted_problems: list[str] = []
        self._failure = ""
        self._results: dict[object, str] = {}  # of the last replica that tried each, by identity
        self._suspects: dict[object, int] = {}  # how often llama-server ended with each
        self._learned = LearnedPrompts() if options.learned else None
        self._learned_count = 0
        self._counted_at = float("-inf")
        self._queued = asyncio.Event()
        self._running = 0
        self._rate = Rate()
        self._computed: deque[tuple[float, int]] = deque()
        dispatcher.learns_prefixes = options.learned

    # What is to be computed.

    def set_inline(self, prompts: Sequence[SpecPrompt]) -> None:
        """Set the beginnings of the spec."""
        if prompts == self._prompts:
            return
        self._prompts = prompts
        named = {f"prompts[{at}]": prompt for at, prompt in enumerate(prompts)}
        found: Found = {name: _parsed(name, prompt) for name, prompt in named.items()}
        self._inline, self._inline_problems = _split(found)

    def set_mounted(self, found: Found, problem: str) -> None:
        """Set the beginnings of the ConfigMap; `problem`: why they cannot be read."""
        name = self._options.config_map
        self._mounted, problems = _split(found)
        if problem:
            problems = [f"ConfigMap {name} cannot be read: {problem}"]
        elif not found:
            problems = [f"ConfigMap {name} does not exist, or has no keys"]
        if problems != self._mounted_problems and problems:
            _log.warning("prompts of ConfigMap %s: %s", name, "; ".join(problems))
        self._mounted_problems = problems

    def _beginnings(self) -> list[Beginning]:
        every = [*self._configured, *self._learned_beginnings()]
        return [each for each in every if not self._ends_llama(each)]

    @property
    def _configured(self) -> list[Beginning]:
        return [*self._inline, *self._mounted]

    def _ends_llama(self, beginning: Beginning) -> bool:
        return self._suspects.get(beginning.identity, 0) >= _MAX_ENDS

    def _learned_beginnings(self) -> Iterator[Beginning]:
        if self._learned is None:
            return
        for number, each in enumerate(self._learned.hottest(self._loop.time())):
            if beginning := from_learned(number, each):
                yield beginning
            else:
                self._learned.discard(each.prefixes)

    # Requests.

    def on_queue(self) -> None:
        """End priming if a request is queued that a further replica would serve."""
        if self._has_queued:
            self._queued.set()
            self._queued = asyncio.Event()

    def learn(self, request: Request, prefixes: PrefixHashes) -> None:
        """Learn from a request to which a replica responds."""
        kind = _KINDS.get(request.path)
        if self._learned is None or not (kind and prefixes and request.size <= MAX_BODY_BYTES):
            return
        if kind is PromptKind.CHAT or not _SEVERAL_PROMPTS.search(request.body):
            self._learned.record(kind, request.body, prefixes, self._loop.time())

    def stop(self) -> None:
        """Forget what was learned: another balancer is the leader."""
        if self._learned:
            self._learned.clear()

    def _first_queued(self) -> Iterator[PrefixHashes]:
        return (each.prefixes for each in self._dispatcher.queue.peek(_MAX_COMPARED))

    @property
    def _has_queued(self) -> bool:
        return self._dispatcher.queued > self._dispatcher.held

    # Replicas.

    async def prime(self, name: str) -> AfterPriming:
        """Compute the beginnings on a replica that gets no requests yet.

        Ends as soon as a request is queued, and after `max_seconds`.
        """
        beginnings = self._beginnings()
        if not beginnings:
            return AfterPriming.IDLE
        dispatcher = self._dispatcher
        if self._has_queued:
            self._metrics.aborts.inc(Abort.REQUEST)
            return AfterPriming.IDLE
        if not dispatcher.has_replica and not dispatcher.limits.max_queued:
            # A request would be rejected, and not queued.
            return AfterPriming.IDLE
        began = self._loop.time()
        self._running += 1
        replica = self._replica(name)
        work = self._loop.create_task(replica.run(beginnings))
        queued = self._loop.create_task(self._queued.wait())
        try:
            await asyncio.wait(
                (work, queued),
                timeout=self._options.max_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            by_request = queued.done()
            if by_request and any(replica.is_sought(each) for each in self._first_queued()):
                # In another slot llama-server would compute all of it again.
                replica.is_ending = True
                await asyncio.wait((work,), timeout=_LAST_CHUNK_SECONDS)
            ended = work.done() and not replica.is_ending
        finally:
            work.cancel()
            queued.cancel()
            await asyncio.gather(work, queued, return_exceptions=True)
            self._metrics.seconds += self._loop.time() - began
            self._running -= 1
        self._record(replica.results)
        if not work.cancelled() and (error := work.exception()):
            return self._failed(replica, error)
        if not ended:
            return self._aborted(replica, by_request=by_request)
        self._failure = ""
        return AfterPriming.IDLE

    def _replica(self, name: str) -> ReplicaPriming:
        host, _, port = name.rpartition(":")
        affinity = self._dispatcher.affinity
        files = self._files

        async def is_restorable(beginning: Beginning) -> bool:
            if files:
                for prefixes in beginning.prefixes:
                    if await files.can_restore(name, prefixes, beginning.size):
                        return True
            return False

        def on_primed(beginning: Beginning) -> None:
            self._metrics.prompts += 1
            self._suspects.pop(beginning.identity, None)
            for prefixes in beginning.prefixes:
                self._dispatcher.affinity_scheduler.record_primed(name, prefixes)

        return ReplicaPriming(
            name,
            self._llama(host.strip("[]"), int(port)),
            self._rate,
            affinity is not None and affinity.cached_prompts > 0,
            self._loop.time,
            is_restorable,
            self._on_computed,
            on_primed,
        )

    def _on_computed(self, tokens: int) -> None:
        self._metrics.tokens += tokens
        self._computed.append((self._loop.time(), tokens))

    def _aborted(self, replica: ReplicaPriming, *, by_request: bool) -> AfterPriming:
        if by_request:
            self._metrics.aborts.inc(Abort.REQUEST)
        else:
            self._metrics.aborts.inc(Abort.TIMEOUT)
            seconds = f"{self._options.max_seconds:g} s"
            if replica.current:
                self._failure = _timeout(replica, replica.current.name, seconds)
            else:
                self._failure = f"llama-server did not respond to /slots in {seconds}"
            _log.warning("replica %s: %s", replica.name, self._failure)
        return AfterPriming.COMPUTING if replica.is_computing else AfterPriming.IDLE

    def _record(self, results: Iterable[tuple[Beginning, str]]) -> None:
        """Keep what a replica found out about each beginning, as long as its text is the same."""
        for beginning, rejection in results:
            if beginning.learned is None:
                self._results[beginning.identity] = rejection
            elif self._learned and rejection:
                self._learned.discard(beginning.learned)
        used = {each.identity for each in self._configured}
        self._results = {each: found for each, found in self._results.items() if each in used}

    def _failed(self, replica: ReplicaPriming, error: BaseException) -> AfterPriming:
        self._metrics.aborts.inc(Abort.FAILED)
        reason = describe(error) if isinstance(error, Exception) else repr(error)
        if replica.current:
            again = ""
            if _is_end(error) and self._has_ended_twice(replica.current):
                again = " is not computed any more"
            reason = f"{replica.current.name}{again}: {reason}"
        self._failure = reason
        _log.warning("replica %s: priming failed: %s", replica.name, reason)
        return AfterPriming.FAILED

    def _has_ended_twice(self, beginning: Beginning) -> bool:
        """Record that a llama-server ended with a beginning, in its template, its tokenizer or its
        model: on the next replica it may do the same."""
        ends = self._suspects.pop(beginning.identity, 0) + 1
        self._suspects[beginning.identity] = ends
        if len(self._suspects) > _MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]
        return ends >= _MAX_ENDS

    # Reports.

    def report(self) -> PrimeReport:
        """Return the state, for the operator."""
        now = self._loop.time()
        while self._computed and self._computed[0][0] < now - _HOUR:
            self._computed.popleft()
        if self._learned and now - self._counted_at >= _COUNT_SECONDS:
            self._counted_at = now
            self._learned_count = len(self._learned.hottest(now))
        reason, message = self._reason()
        return PrimeReport(
            reason,
            message,
            prompts=len(self._configured),
            learned=self._learned_count,
            tokens_last_hour=sum(tokens for _, tokens in self._computed),
            replicas=self._running,
        )

    def _reason(self) -> tuple[Reason, str]:
        tried = [(each.name, self._results.get(each.identity)) for each in self._configured]
        rejected = [f"{name}: {result}" for name, result in tried if result]
        problems = [*self._inline_problems, *self._mounted_problems, *rejected]
        if problems:
            return Reason.PROMPT_INVALID, "; ".join(islice(problems, _MAX_SHOWN))
        if self._failure:
            return Reason.PRIMING_FAILED, self._failure
        if ending := [each.name for each in self._configured if self._ends_llama(each)]:
            reasons = (f"{name} is not computed any more: {_ENDED_TWICE}" for name in ending)
            return Reason.PRIMING_FAILED, "; ".join(islice(reasons, _MAX_SHOWN))
        if self._running:
            return Reason.ACTIVE, _running(self._running)
        if tried and all(result is None for _, result in tried):
            return Reason.ACTIVE, _UNTRIED
        return Reason.ACTIVE, _TRIED


def _running(replicas: int) -> str:
    compute = "a new replica computes" if replicas == 1 else f"{replicas} new replicas compute"
    return f"{compute} the prompts now; requests that are queued meanwhile end that"


def _timeout(replica: ReplicaPriming, name: str, seconds: str) -> str:
    if any(not rejection for _, rejection in replica.results):
        return f"not all prompts were computed in {seconds}, only those before {name}"
    return f"no prompt was computed in {seconds}: {name} takes longer"


def _is_end(error: BaseException) -> bool:
    """Whether llama-server ended while it responded; it had ended before if it refuses."""
    return isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)


def _parsed(name: str, prompt: SpecPrompt) -> Beginning | str:
    try:
        return from_source(name, prompt)
    except ValueError as error:
        return str(error)


def _split(found: Found) -> tuple[list[Beginning], list[str]]:
    """Return the beginnings, and why others cannot be used."""
    beginnings = [each for each in found.values() if isinstance(each, Beginning)]
    problems = [f"{name}: {each}" for name, each in found.items() if isinstance(each, str)]
    return beginnings, problems
