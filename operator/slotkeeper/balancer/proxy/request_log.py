"""What a request that is over leaves behind: numbers, and a line in the log."""

from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy.request import Forward
from slotkeeper.edge.access_log import AccessLog, asked, said
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request


class Accounts:
    """Counts requests and logs them."""

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self._metrics = metrics
        self.log = log

    def refused(self, exchange: Exchange, refusal: Refusal, key: str | None) -> None:
        """A request was refused as it came; `key`: the name of its API key."""
        self._metrics.over("refused", refusal.status)
        self.log.add({**said(exchange, key), "outcome": "refused", "code": refusal.code})

    def never_whole(self, peer: str, refusal: Refusal, request: Request | None) -> None:
        """A request of `peer` was refused before it was whole; `request`: its head, if known."""
        self._metrics.over("refused", refusal.status)
        self.log.add(
            {
                **asked(peer, None, request),
                "status": refusal.status,
                "outcome": "refused",
                "code": refusal.code,
            }
        )

    def over(self, forward: Forward, outcome: str, now: float) -> None:
        """A request is over, with `outcome` answered, gone, cut, failed or expired."""
        exchange = forward.exchange
        stats = forward.stats
        metrics = self._metrics
        arrived = stats.arrived_at
        waited = forward.waited
        first = None if stats.first_byte_at is None else stats.first_byte_at - arrived
        tokens = None
        if forward.relayed:
            # All else is counted where it gets its slot.
            metrics.relayed.inc()
        else:
            metrics.over(outcome, exchange.status, stats.upstream)
            metrics.wait_seconds.observe(waited)
            metrics.request_seconds.observe(now - arrived)
            if stats.prefix_hit is not None:
                (metrics.prefix_hits if stats.prefix_hit else metrics.prefix_misses).inc()
            if first is not None:
                metrics.first_token_seconds.observe(first)
            if outcome == "answered" and (tokens := stats.edges.tokens(exchange.request.path)):
                metrics.took(tokens)
        if not self.log.kept:
            return
        self.log.add(
            {
                **said(exchange, forward.key),
                "outcome": outcome,
                "replica": stats.upstream or None,
                "relayed": forward.relayed,
                "tries": forward.ticket.attempts,
                "hit": stats.prefix_hit,
                "overtaken": forward.ticket.bypassed,
                "wait": waited,
                "first_byte": first,
                "seconds": now - arrived,
                "bytes_in": stats.received_bytes,
                "bytes_out": stats.sent_bytes,
                "prompt_tokens": tokens and tokens.prompt,
                "cached_tokens": tokens and tokens.cached,
                "heartbeats": forward.early.beats if forward.early else 0,
                "generated_tokens": tokens and tokens.generated,
            }
        )
