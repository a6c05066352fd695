"""Metrics and access log of finished requests."""

from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.edge.access_log import AccessLog, exchange_fields, request_fields
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request


class RequestLog:
    """Counts requests and writes them to the access log."""

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self._metrics = metrics
        self.log = log

    def rejected(self, exchange: Exchange, error: HttpError, key_name: str | None) -> None:
        """Record a request that was rejected on arrival; `key_name`: of its API key."""
        self._metrics.finished(Outcome.REJECTED, error.status)
        self.log.add(
            {
                **exchange_fields(exchange, key_name),
                "outcome": Outcome.REJECTED,
                "code": error.code,
            }
        )

    def rejected_incomplete(self, peer: str, error: HttpError, request: Request | None) -> None:
        """Record a request that was rejected before it was complete; `request`: its head, if read.

        `peer`: the client's HOST:PORT.
        """
        self._metrics.finished(Outcome.REJECTED, error.status)
        self.log.add(
            {
                **request_fields(peer, None, request),
                "status": error.status,
                "outcome": Outcome.REJECTED,
                "code": error.code,
            }
        )

    def finished(self, request: ProxiedRequest, outcome: Outcome, now: float) -> Tokens | None:
        """Record a request that was queued, dispatched or relayed.

        Returns the tokens that its replica reported; None for a response that is not complete.
        """
        exchange = request.exchange
        stats = request.stats
        metrics = self._metrics
        arrived = stats.arrived_at
        queue_seconds = request.queue_seconds
        first = None if stats.first_byte_at is None else stats.first_byte_at - arrived
        tokens = None
        if request.relayed:
            # The leader counts everything else.
            metrics.relayed.inc()
        else:
            metrics.finished(outcome, exchange.status, stats.upstream)
            metrics.queue_duration.observe(queue_seconds)
            metrics.request_duration.observe(now - arrived)
            if stats.prefix_hit is not None:
                (
                    metrics.prefix_cache_hits if stats.prefix_hit else metrics.prefix_cache_misses
                ).inc()
            if first is not None:
                metrics.time_to_first_token.observe(first)
            if outcome is Outcome.COMPLETED:
                tokens = stats.edges.tokens(exchange.request.path)
                if tokens:
                    metrics.add_tokens(tokens)
        if not self.log.enabled:
            return tokens
        self.log.add(
            {
                **exchange_fields(exchange, request.key_name),
                "outcome": outcome,
                "code": stats.error_code,
                "replica": stats.upstream or None,
                "relayed": request.relayed,
                "attempts": request.queued.attempts,
                "preemptible": request.preemptible,
                "prefix_hit": stats.prefix_hit,
                "restored_tokens": stats.restored and stats.restored.tokens,
                "restore_seconds": stats.restored and stats.restored.seconds,
                "bypassed": request.queued.bypassed,
                "queue_seconds": None if request.relayed else queue_seconds,
                "first_byte_seconds": first,
                "duration_seconds": now - arrived,
                "bytes_in": stats.received_bytes,
                "bytes_out": stats.sent_bytes,
                "prompt_tokens": tokens and tokens.prompt,
                "cached_tokens": tokens and tokens.cached,
                "keepalives": request.early.keepalives_sent if request.early else 0,
                "generated_tokens": tokens and tokens.generated,
            }
        )
        return tokens
