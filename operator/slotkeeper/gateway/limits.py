"""Limits of API keys: requests and tokens per minute, and running requests. Pure.

Each gateway pod enforces its share of a limit, that is the limit divided by the number of pods, and
at least one request. A client whose connections all lead to one pod gets that pod's share.
"""

from collections import deque
from typing import NamedTuple

from slotkeeper.gateway.config import GatewayConfig, KeyLimits
from slotkeeper.wire.errors import HttpError

MINUTE = 60.0
_STEP = 5.0
"""Seconds whose requests are counted together. They count until the last of them is a minute old,
so that no minute has more than the limit."""


class RateWindow:
    """What was counted in the last minute."""

    __slots__ = ("_steps", "total")

    def __init__(self) -> None:
        self.total = 0
        self._steps: deque[list[int]] = deque()  # number of the step, count

    def add(self, count: int, now: float) -> None:
        """Count something that happens now."""
        step = int(now // _STEP)
        if self._steps and self._steps[-1][0] == step:
            self._steps[-1][1] += count
        else:
            self._steps.append([step, count])
        self.total += count

    def expire(self, now: float) -> None:
        """Forget what is older than a minute."""
        while self._steps and _end(self._steps[0]) <= now:
            self.total -= self._steps.popleft()[1]

    def seconds_until(self, maximum: int, now: float) -> float:
        """Return the seconds until `maximum` or less are left of what was counted up to now."""
        left = self.total
        for step in self._steps:
            if left <= maximum:
                break
            left -= step[1]
            end = _end(step)
            if left <= maximum:
                return end - now
        return 0.0


class PodCount:
    """Among how many pods limits are divided: all, without those that have not been ready lately.

    A pod that is missing for a minute leaves its share to the others; until then it may only be
    replaced. One that is ready again gets its share at once: too small a share for seconds is
    better than more than the limit. The number of ready pods is that in the LlamaGateway's status,
    which the operator updates within seconds.
    """

    def __init__(self) -> None:
        self.replicas = 1
        """Pods that the spec requires."""
        self._ready: int | None = None
        self._lower: tuple[int, float] | None = None  # most that were ready since then
        self._pods = 0  # 0: all

    def set_ready(self, ready: int | None, now: float) -> None:
        """Set the number of ready pods; None where it is not known."""
        self._ready = ready
        self._update(now)

    def get(self, now: float) -> int:
        """Return the number of pods that share limits now."""
        self._update(now)
        return self._pods or self.replicas

    def _update(self, now: float) -> None:
        ready = self.replicas if self._ready is None else min(max(self._ready, 1), self.replicas)
        current = self._pods or self.replicas
        if ready >= min(current, self.replicas):
            self._pods = 0 if ready == self.replicas else ready
            self._lower = None
            return
        most, since = self._lower or (ready, now)
        self._lower = (max(most, ready), since)
        if now - since >= MINUTE:
            self._pods = max(most, ready)
            self._lower = None


class Rejection(NamedTuple):
    """Why a request is rejected."""

    limit: str
    """The limit's name in the metrics."""
    error: HttpError


class KeyUsage:
    """What one API key has used."""

    __slots__ = ("requests", "running", "tokens")

    def __init__(self) -> None:
        self.requests = RateWindow()
        self.tokens = RateWindow()
        self.running = 0


class KeyLimiter:
    """Counts what each API key uses, and rejects what exceeds its limits."""

    def __init__(self, config: GatewayConfig) -> None:
        self.pods = PodCount()
        self.config = config
        self._usage: dict[str, KeyUsage] = {}

    @property
    def config(self) -> GatewayConfig:
        """The limits, and how many pods share them."""
        return self._config

    @config.setter
    def config(self, config: GatewayConfig) -> None:
        self._config = config
        self.pods.replicas = config.replicas

    def start(self, key: str, now: float, *, preemptible: bool = False) -> Rejection | None:
        """Count a request, or return why it is rejected. Call `finish` when it ends.

        `preemptible`: the request yields to others, and may use half of each limit only.
        """
        limits = self.config.limits_of(key)
        share = self.pods.get(now) * (2 if preemptible else 1)
        usage = self._usage.get(key)
        if usage is None:
            usage = self._usage[key] = KeyUsage()
        usage.requests.expire(now)
        usage.tokens.expire(now)
        rejection = self._check(key, limits, usage, now, share)
        if rejection is None:
            usage.requests.add(1, now)
            usage.running += 1
        return rejection

    def finish(self, key: str) -> None:
        """Count the end of a request."""
        self._usage[key].running -= 1

    def add_tokens(self, key: str, tokens: int, now: float) -> None:
        """Count the tokens that a response has reported at its end."""
        usage = self._usage[key].tokens
        usage.expire(now)
        usage.add(tokens, now)

    def _check(
        self, key: str, limits: KeyLimits, usage: KeyUsage, now: float, share: int
    ) -> Rejection | None:
        running, requests, tokens = (
            None if limit is None else max(1, limit // share)
            for limit in (
                limits.max_running_requests,
                limits.requests_per_minute,
                limits.tokens_per_minute,
            )
        )
        if running is not None and usage.running >= running:
            return Rejection(
                "max_running_requests",
                HttpError(
                    429,
                    "too_many_running_requests",
                    f"API key {key}: {usage.running} requests are running here, the maximum "
                    f"(maxRunningRequests: {limits.max_running_requests} in all gateway pods): "
                    "retry when one has ended",
                    retry_after=1,
                ),
            )
        if requests is not None and usage.requests.total >= requests:
            return _rate_exceeded(
                "requests_per_minute",
                f"API key {key}: more than {requests} requests in a minute here "
                f"(requestsPerMinute: {limits.requests_per_minute} in all gateway pods)",
                usage.requests.seconds_until(requests - 1, now),
            )
        if tokens is not None and usage.tokens.total >= tokens:
            return _rate_exceeded(
                "tokens_per_minute",
                f"API key {key}: {usage.tokens.total} tokens in the last minute here, the maximum "
                f"is {tokens} (tokensPerMinute: {limits.tokens_per_minute} in all gateway pods)",
                usage.tokens.seconds_until(tokens - 1, now),
            )
        return None


def _rate_exceeded(limit: str, message: str, seconds: float) -> Rejection:
    error = HttpError(429, "rate_limit_exceeded", message, retry_after=seconds)
    return Rejection(limit, error)


def _end(step: list[int]) -> float:
    """Return when what was counted in this step is older than a minute."""
    return (step[0] + 1) * _STEP + MINUTE
