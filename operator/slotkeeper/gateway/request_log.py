"""Metrics and access log of finished requests."""

from slotkeeper.edge.access_log import AccessLog, exchange_fields, request_fields
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens
from slotkeeper.gateway.metrics import NO_MODEL, Metrics
from slotkeeper.gateway.request import GatewayRequest
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request


class RequestLog:
    """Counts requests and writes them to the access log."""

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self._metrics = metrics
        self.log = log

    def rejected(
        self, exchange: Exchange, error: HttpError, key: str | None, reason: str = ""
    ) -> None:
        """Record a request that was not forwarded; `key`: the name of its API key.

        `reason`: the limit that it exceeds, if it does.
        """
        self._metrics.rejected(reason or error.code, key, error.status)
        self.log.add(
            {
                **exchange_fields(exchange, key),
                "outcome": Outcome.REJECTED,
                "code": error.code,
            }
        )

    def rejected_incomplete(self, peer: str, error: HttpError, request: Request | None) -> None:
        """Record a request that was rejected before it was complete; `request`: its head, if read.

        `peer`: the client's HOST:PORT.
        """
        self._metrics.rejected(error.code, None, error.status)
        self.log.add(
            {
                **request_fields(peer, None, request),
                "status": error.status,
                "outcome": Outcome.REJECTED,
                "code": error.code,
            }
        )

    def finished_batches(
        self, exchange: Exchange, key: str | None, outcome: Outcome, seconds: float
    ) -> None:
        """Record a request for files or batches."""
        self._metrics.finished(NO_MODEL, key, outcome, exchange.status, seconds)
        self.log.add(
            {
                **exchange_fields(exchange, key),
                "outcome": outcome,
                "duration_seconds": seconds,
            }
        )

    def finished(
        self, request: GatewayRequest, outcome: Outcome, tokens: Tokens | None, now: float
    ) -> None:
        """Record a forwarded request."""
        exchange = request.exchange
        stats = request.stats
        metrics = self._metrics
        model = request.model
        duration = now - stats.arrived_at
        first = None if stats.first_byte_at is None else stats.first_byte_at - stats.arrived_at
        metrics.finished(model.name, request.key, outcome, exchange.status, duration)
        if first is not None:
            metrics.first_byte(model.name, first)
        if tokens:
            metrics.add_tokens(model.name, request.key, tokens)
        if not self.log.enabled:
            return
        self.log.add(
            {
                **exchange_fields(exchange, request.key),
                "outcome": outcome,
                "code": stats.error_code,
                "model": model.name,
                "server": model.server,
                "fallback_from": None if model is request.first_model else request.first_model.name,
                "retried": request.retried,
                "first_byte_seconds": first,
                "duration_seconds": duration,
                "bytes_in": stats.received_bytes,
                "bytes_out": stats.sent_bytes,
                "prompt_tokens": tokens and tokens.prompt,
                "cached_tokens": tokens and tokens.cached,
                "generated_tokens": tokens and tokens.generated,
            }
        )
