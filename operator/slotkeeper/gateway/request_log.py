"""Metrics and access log of finished requests."""

from slotkeeper.edge.access_log import AccessLog, exchange_fields, request_fields
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens
from slotkeeper.gateway.gen_ai_metrics import COMPATIBLE, LLAMA_CPP
from slotkeeper.gateway.metrics import NO_MODEL, Metrics
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.operations import operation
from slotkeeper.gateway.request import GatewayRequest
from slotkeeper.gateway.usage_log import UsageLog
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request


class RequestLog:
    """Counts requests, and writes them to the access log and the usage log."""

    def __init__(self, metrics: Metrics, log: AccessLog, usage: UsageLog) -> None:
        self._metrics = metrics
        self.log = log
        self.usage = usage

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
        queued = stats.response.queue_seconds(stats.arrived_at)
        if queued is not None:
            metrics.queued(model.name, request.key, queued)
        self._record_operation(request, outcome, tokens, duration)
        self.usage.add(request, outcome, tokens, now)
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
                "queue_seconds": queued,
                "first_byte_seconds": first,
                "duration_seconds": duration,
                "bytes_in": stats.received_bytes,
                "bytes_out": stats.sent_bytes,
                "prompt_tokens": tokens and tokens.prompt,
                "cached_tokens": tokens and tokens.cached,
                "generated_tokens": tokens and tokens.generated,
            }
        )

    def flush(self) -> None:
        """Write the buffered lines of both logs."""
        self.log.flush()
        self.usage.log.flush()

    def _record_operation(
        self, request: GatewayRequest, outcome: Outcome, tokens: Tokens | None, duration: float
    ) -> None:
        """Record what depends on the operation: metrics of requests that use tokens."""
        name = operation(request.message.path)
        if name is None:
            return
        metrics = self._metrics
        model = request.model.name
        stats = request.stats
        status = request.exchange.status
        provider = LLAMA_CPP if isinstance(request.model, Model) else COMPATIBLE
        series = (name, provider, model)
        succeeded = metrics.gen_ai.finished(series, outcome, status, duration)
        if tokens:
            metrics.gen_ai.add_tokens(series, tokens)
        elif status == 200:
            metrics.usage_unreported(model, request.key)
        first_event_at = stats.response.first_event_at
        if succeeded and first_event_at is not None:
            first = first_event_at - stats.arrived_at
            metrics.gen_ai.add_stream(series, first=first, seconds=duration, tokens=tokens)
