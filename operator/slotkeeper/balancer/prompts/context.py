"""What the replicas' prompt files have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field

from slotkeeper.backoff import Backoff
from slotkeeper.balancer.prompt_metrics import PromptMetrics
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.prompt_files import (
    PromptFile,
    PromptFileIndex,
    RestorePlan,
    RestoreRecord,
)
from slotkeeper.scheduling.prompt_saves import ReplicaLoad, SeenPrompts


@dataclass(frozen=True, slots=True)
class PromptTimings:
    """Timeouts and intervals, in seconds."""

    join: Backoff = Backoff(0.5, 30.0)  # noqa: RUF009 (frozen)
    """Between two requests to an agent that does not respond."""
    first_listing: float = 1.0
    """For which requests wait until the files of a new replica are known. Usually it takes some
    milliseconds."""
    response: float = 2.0
    """For a response of llama-server's /slots, which a long decode step delays."""
    agent: float = 30.0
    """For a response of the agent, which may read a file or free space."""
    save: float = 30.0
    """For the save of a slot: a state of several GB, on a slow disk."""
    deferred: float = 0.25
    """Between two checks whether llama-server defers a save or a restore, since a request uses the
    slot. Most are complete by then."""
    poll: float = 1.0
    """Between two reads of a replica's /slots, and decisions on what to save."""
    listing: float = 60.0
    """Between two listings of a folder that other replicas may write to."""
    pause: float = 60.0
    """After a save that failed, until the next one."""
    invalid: float = 600.0
    """After a file that the agent rejected, until the next save."""
    drained: float = 0.05
    """Between two checks whether the last request of an ending replica has ended."""
    ending: float = 10.0
    """For all saves of an ending replica. Its pod waits for 15 s."""
    done: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)
    """Before each attempt to tell the agent that nothing more is saved."""


DEFAULT_TIMINGS = PromptTimings()


@dataclass(frozen=True, slots=True)
class Restored:
    """A prompt file that was restored for a request."""

    plan: RestorePlan
    seconds: float

    @property
    def tokens(self) -> int:
        """Tokens in the file."""
        return self.plan.file.tokens


@dataclass(frozen=True, slots=True)
class CompletedPrompt:
    """A completed request with prefixes, and the tokens that llama-server reported of it."""

    prefixes: PrefixHashes
    computed: int
    """Tokens of the prompt, without the cached ones."""
    cached: int
    generated: int
    compute_seconds: float | None
    """For the computed ones; None if not reported."""
    restored: Restored | None


@dataclass(slots=True)
class PromptContext:
    """What is known of all replicas, and how to find out more."""

    now: Callable[[], float]
    load: Callable[[str], ReplicaLoad]
    """What runs on a replica."""
    metrics: PromptMetrics
    timings: PromptTimings
    on_saved: Callable[[str, PromptFile], None]
    """Called when a replica has saved a file."""
    on_restarted: Callable[[str], None]
    """Called when a replica's llama-server turns out to be another process than before."""
    index: PromptFileIndex = field(default_factory=PromptFileIndex)
    seen: SeenPrompts = field(default_factory=SeenPrompts)
    record: RestoreRecord = field(init=False)
    full_at: float = float("-inf")
    """When a folder last had no room for a file."""

    def __post_init__(self) -> None:
        self.record = RestoreRecord(self.index)
