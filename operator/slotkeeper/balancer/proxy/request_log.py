"""What a request that is over leaves behind: numbers, and a line in the log."""

from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.edge.access_log import AccessLog, exchange_fields, request_fields
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request


class RequestLog:
    """Counts requests and logs them."""

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self._metrics = metrics
        self.log = log

    def rejected(self, exchange: Exchange, refusal: HttpError, key: str | None) -> None:
        """A request was refused as it came; `key`: the name of its API key."""
        self._metrics.finished("rejected", refusal.status)
        self.log.add(
            {**exchange_fields(exchange, key), "outcome": "rejected", "code": refusal.code}
        )

    def rejected_incomplete(self, peer: str, refusal: HttpError, request: Request | None) -> None:
        """A request of `peer` was refused before it was whole; `request`: its head, if known."""
        self._metrics.finished("rejected", refusal.status)
        self.log.add(
            {
                **request_fields(peer, None, request),
                "status": refusal.status,
                "outcome": "rejected",
                "code": refusal.code,
            }
        )

    def finished(self, forward: ProxiedRequest, outcome: str, now: float) -> None:
        """A request is over, with `outcome` answered, gone, cut, failed or expired."""
        exchange = forward.exchange
        stats = forward.stats
        metrics = self._metrics
        arrived = stats.arrived_at
        waited = forward.queue_seconds
        first = None if stats.first_byte_at is None else stats.first_byte_at - arrived
        tokens = None
        if forward.relayed:
            # All else is counted where it gets its slot.
            metrics.relayed.inc()
        else:
            metrics.finished(outcome, exchange.status, stats.upstream)
            metrics.queue_duration.observe(waited)
            metrics.request_duration.observe(now - arrived)
            if stats.prefix_hit is not None:
                (
                    metrics.prefix_cache_hits if stats.prefix_hit else metrics.prefix_cache_misses
                ).inc()
            if first is not None:
                metrics.time_to_first_token.observe(first)
            if outcome == "completed" and (tokens := stats.edges.tokens(exchange.request.path)):
                metrics.add_tokens(tokens)
        if not self.log.enabled:
            return
        self.log.add(
            {
                **exchange_fields(exchange, forward.key),
                "outcome": outcome,
                "replica": stats.upstream or None,
                "relayed": forward.relayed,
                "attempts": forward.queued.attempts,
                "prefix_hit": stats.prefix_hit,
                "bypassed": forward.queued.bypassed,
                "queue_seconds": waited,
                "first_byte_seconds": first,
                "duration_seconds": now - arrived,
                "bytes_in": stats.received_bytes,
                "bytes_out": stats.sent_bytes,
                "prompt_tokens": tokens and tokens.prompt,
                "cached_tokens": tokens and tokens.cached,
                "keepalives": forward.early.keepalives_sent if forward.early else 0,
                "generated_tokens": tokens and tokens.generated,
            }
        )
