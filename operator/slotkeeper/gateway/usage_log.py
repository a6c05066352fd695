"""Usage log: one line of JSON for each forwarded request, for billing.

Its fields are part of the API: they are only ever added. It contains neither prompts and responses
nor the secrets of API keys.
"""

import itertools

from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.routes import display_path
from slotkeeper.edge.trace_context import trace_id
from slotkeeper.edge.usage import Tokens
from slotkeeper.gateway.request import GatewayRequest


class UsageLog:
    """Writes the lines to `log`. `process` makes the identifiers of this process unique."""

    def __init__(self, log: AccessLog, process: str) -> None:
        self.enabled = False
        self.log = log
        self._process = process
        self._numbers = itertools.count(1)

    def add(
        self, request: GatewayRequest, outcome: Outcome, tokens: Tokens | None, now: float
    ) -> None:
        """Log a finished request; `tokens` None: its response has reported none."""
        if not self.enabled:
            return
        message = request.exchange.request
        stats = request.stats
        self.log.add(
            {
                "log": "usage",
                "id": f"{self._process}-{next(self._numbers)}",
                "trace": trace_id(message),
                "key": request.key,
                "model": request.model.name,
                "requested_model": request.requested,
                "server": request.model.server,
                "path": display_path(message.path),
                "stream": stats.response.stream,
                "status": request.exchange.status or None,
                "outcome": outcome,
                "prompt_tokens": tokens and tokens.prompt + tokens.cached,
                "cached_tokens": tokens and tokens.cached,
                "completion_tokens": tokens and tokens.generated,
                "streamed_events": stats.response.events,
                "wait_seconds": stats.response.queue_seconds(stats.arrived_at),
                "duration_seconds": now - stats.arrived_at,
            }
        )
