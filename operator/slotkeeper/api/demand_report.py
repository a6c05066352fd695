"""The JSON of `/autoscaling`: written by the balancer, read by the operator and by other scalers.

No pydantic: the balancer's image has none.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.bounded_json import parse

PATH = "/autoscaling"
LOCAL = "scope=local"
"""Query string for the report of the balancer that receives the request. Without it a standby
forwards the leader's report; with it requests between balancers cannot loop."""

MAX_BYTES = 256 * 1024
"""Of a report. One of a thousand replicas has 30 KiB."""

MAX_COUNT = 10**9
MAX_SECONDS = 10.0**9
MAX_RATE = 10.0**9
MAX_BYTES_ON_DISK = 2**53
"""Of a number in a report: far more than any balancer can have, and far less than what would be
rounded or overflow in a decision."""

_MAX_NAMES = 1000
_MAX_NAME = 100
_MAX_MESSAGE = 1000

PROMPT_CACHE_REASONS = frozenset(
    {
        Reason.ACTIVE,
        Reason.NO_REPLICA,
        Reason.RESTORE_SLOWER,
        Reason.NOT_HONORED,
        Reason.FOLDER_FULL,
        Reason.UNREACHABLE,
    }
)


@dataclass(frozen=True, slots=True)
class PromptCacheReport:
    """The files of prompts, and whether prompts are restored from them."""

    reason: Reason
    """One of PROMPT_CACHE_REASONS: ACTIVE, or why prompts are not restored."""
    message: str
    """Details for people, cut to 1000 characters."""
    bytes: int = 0
    files: int = 0
    """Of the files that replicas can restore, each counted once."""
    restored_tokens_last_hour: int = 0

    def to_json(self) -> dict[str, object]:
        """Return the report as a JSON tree that `from_json` parses."""
        return {
            "reason": self.reason.value,
            "message": self.message[:_MAX_MESSAGE],
            "bytes": self.bytes,
            "files": self.files,
            "restoredTokensLastHour": self.restored_tokens_last_hour,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """Parse a report; None with a reason of another release, which must not stop the scaling.

        Raises ValueError if it is malformed or out of range.
        """
        tree = _object(value)
        reason, message = _explanation(tree, PROMPT_CACHE_REASONS)
        if reason is None:
            return None
        return cls(
            reason=reason,
            message=message,
            bytes=_integer(tree.get("bytes", 0), MAX_BYTES_ON_DISK),
            files=_count(tree.get("files", 0)),
            restored_tokens_last_hour=_integer(
                tree.get("restoredTokensLastHour", 0), MAX_BYTES_ON_DISK
            ),
        )


PRIME_REASONS = frozenset({Reason.ACTIVE, Reason.PROMPT_INVALID, Reason.PRIMING_FAILED})


@dataclass(frozen=True, slots=True)
class PrimeReport:
    """The beginnings of prompts that new replicas compute."""

    reason: Reason
    """One of PRIME_REASONS: ACTIVE, or why some are not computed."""
    message: str
    """Details for people, cut to 1000 characters."""
    prompts: int = 0
    """Beginnings of the spec and of its ConfigMap."""
    learned: int = 0
    tokens_last_hour: int = 0
    """Tokens that new replicas computed for them, without parts that were aborted."""
    replicas: int = 0
    """Replicas that compute them now. They have no slots yet, but get queued requests at once."""

    def to_json(self) -> dict[str, object]:
        """Return the report as a JSON tree that `from_json` parses."""
        return {
            "reason": self.reason.value,
            "message": self.message[:_MAX_MESSAGE],
            "prompts": self.prompts,
            "learned": self.learned,
            "tokensLastHour": self.tokens_last_hour,
            "replicas": self.replicas,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """Parse a report; None with a reason of another release, which must not stop the scaling.

        Raises ValueError if it is malformed or out of range.
        """
        tree = _object(value)
        reason, message = _explanation(tree, PRIME_REASONS)
        if reason is None:
            return None
        return cls(
            reason=reason,
            message=message,
            prompts=_count(tree.get("prompts", 0)),
            learned=_count(tree.get("learned", 0)),
            tokens_last_hour=_integer(tree.get("tokensLastHour", 0), MAX_BYTES_ON_DISK),
            replicas=_count(tree.get("replicas", 0)),
        )


@dataclass(frozen=True, slots=True)
class SpeculationReport:
    """Speculative decoding of a server that has it."""

    inactive: tuple[str, ...] = ()
    """Ready replicas (HOST:PORT) that serve without it."""
    acceptance_percent: int | None = None
    """Part of the guessed tokens that was right; None before the first guess."""

    def to_json(self) -> dict[str, object]:
        """Return the report as a JSON tree that `from_json` parses."""
        return {"inactive": list(self.inactive), "acceptancePercent": self.acceptance_percent}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Parse a report. Raises ValueError if it is malformed or out of range."""
        tree = _object(value)
        percent = tree.get("acceptancePercent")
        return cls(
            inactive=_names(tree.get("inactive", [])),
            acceptance_percent=None if percent is None else _integer(percent, 100),
        )


@dataclass(frozen=True, slots=True)
class DemandReport:
    """Demand as measured by one balancer at one time. Times are in seconds."""

    leader: bool
    """Whether this balancer is the leader. A standby reports only its own requests."""
    total_slots: int
    """Slots of ready replicas, and busy slots of replicas that are leaving."""
    busy_slots: int
    queued: int
    """Requests without a slot."""
    oldest_queued_seconds: float
    """Age of the oldest queued request; 0 if none is queued."""
    peak_demand: int
    """Highest demand (busy slots plus queued requests) of the last five seconds."""
    replicas: int = 0
    """Ready replicas."""
    busy_by_replica: Mapping[str, int] | None = None
    """Busy slots by replica (HOST:PORT), without idle replicas; None if not reported."""
    mean_demand: float | None = None
    """Mean demand of the last ten minutes."""
    arrivals_per_second: float = 0.0
    """Mean of the last minute."""
    mean_service_seconds: float | None = None
    """Mean time that a request occupies its slot; None before six requests have completed."""
    further_tasks: int = 0
    """Slots that queued requests need beyond one each, and tasks queued inside llama-servers."""
    preemptible: int = 0
    """Slots of preemptible requests, and queued ones. The other numbers do not count them, except
    for `total_slots`: they need one replica, and never more."""
    unresponsive: tuple[str, ...] = ()
    """Replicas (HOST:PORT) that run and process nothing."""
    view_age_seconds: float = 0.0
    """Since the API server last confirmed the replicas and rules that this balancer has."""
    prompt_cache: PromptCacheReport | None = None
    """None without the cache, and in a standby's report."""
    prime: PrimeReport | None = None
    """None without priming, and in a standby's report."""
    builds: tuple[str, ...] = ()
    """Builds of llama-server that the replicas report, such as b11434-5a1b2c3."""
    speculation: SpeculationReport | None = None
    """None without speculative decoding, and in a standby's report."""

    @property
    def demand(self) -> int:
        """Slots that all requests would use if there were enough."""
        return self.busy_slots + self.queued + self.further_tasks

    def to_json(self) -> dict[str, object]:
        """Return the report as a JSON tree that `from_json` parses."""
        service = self.mean_service_seconds
        mean = self.mean_demand
        busy = self.busy_by_replica
        return {
            "leader": self.leader,
            "slots": {"total": self.total_slots, "busy": self.busy_slots},
            "queued": self.queued,
            "furtherTasks": self.further_tasks,
            "preemptible": self.preemptible,
            "oldestQueuedSeconds": round(self.oldest_queued_seconds, 3),
            "replicas": self.replicas,
            "busyByReplica": busy if busy is None else dict(busy),
            "demand": self.demand,
            "peakDemand": self.peak_demand,
            "meanDemand": None if mean is None else round(mean, 3),
            "arrivalsPerSecond": round(self.arrivals_per_second, 3),
            "meanServiceSeconds": None if service is None else round(service, 3),
            "unresponsive": list(self.unresponsive),
            "viewAgeSeconds": round(self.view_age_seconds, 3),
            **({"promptCache": self.prompt_cache.to_json()} if self.prompt_cache else {}),
            **({"prime": self.prime.to_json()} if self.prime else {}),
            **({"builds": list(self.builds)} if self.builds else {}),
            **({"speculation": self.speculation.to_json()} if self.speculation else {}),
        }

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Parse a report. Raises ValueError if it is malformed, too large or out of range."""
        tree = _object(parse(body, max_bytes=MAX_BYTES))
        slots = _object(tree.get("slots"))
        busy = tree.get("busyByReplica")
        prompts = tree.get("promptCache")
        prime = tree.get("prime")
        speculation = tree.get("speculation")
        return cls(
            leader=tree.get("leader") is True,
            total_slots=_count(slots.get("total")),
            busy_slots=_count(slots.get("busy")),
            queued=_count(tree.get("queued")),
            oldest_queued_seconds=_number(tree.get("oldestQueuedSeconds"), MAX_SECONDS),
            peak_demand=_count(tree.get("peakDemand")),
            replicas=_count(tree.get("replicas", 0)),
            busy_by_replica=None if busy is None else _counts(busy),
            mean_demand=_optional(tree.get("meanDemand"), MAX_COUNT),
            arrivals_per_second=_number(tree.get("arrivalsPerSecond", 0.0), MAX_RATE),
            mean_service_seconds=_optional(tree.get("meanServiceSeconds"), MAX_SECONDS),
            further_tasks=_count(tree.get("furtherTasks", 0)),
            preemptible=_count(tree.get("preemptible", 0)),
            unresponsive=_names(tree.get("unresponsive", [])),
            view_age_seconds=_number(tree.get("viewAgeSeconds", 0.0), MAX_SECONDS),
            prompt_cache=None if prompts is None else PromptCacheReport.from_json(prompts),
            prime=None if prime is None else PrimeReport.from_json(prime),
            builds=_names(tree.get("builds", [])),
            speculation=None if speculation is None else SpeculationReport.from_json(speculation),
        )


def _explanation(tree: Mapping[str, Any], reasons: Collection[Reason]) -> tuple[Reason | None, str]:
    """Return reason and message of a report; None for a reason that is none of these."""
    reason, message = (_text(tree.get(name), _MAX_MESSAGE) for name in ("reason", "message"))
    return Reason(reason) if reason in reasons else None, message


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, not {type(value).__name__}")
    return value


def _counts(value: Any) -> dict[str, int]:
    return {name: _count(count) for name, count in _object(value).items()}


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_NAMES:
        raise ValueError("expected a list of names")
    if not all(isinstance(name, str) and len(name) <= _MAX_NAME for name in value):
        raise ValueError("expected names")
    return tuple(value)


def _text(value: Any, maximum: int) -> str:
    if not isinstance(value, str) or len(value) > maximum:
        raise ValueError(f"expected a text of at most {maximum} characters")
    return value


def _number(value: Any, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, not {type(value).__name__}")
    if not 0 <= value <= maximum:
        raise ValueError(f"expected a number from 0 to {maximum:g}")
    return float(value)


def _optional(value: Any, maximum: float) -> float | None:
    return None if value is None else _number(value, maximum)


def _count(value: Any) -> int:
    return _integer(value, MAX_COUNT)


def _integer(value: Any, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, not {type(value).__name__}")
    return int(_number(value, maximum))
