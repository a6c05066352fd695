"""Metrics with the names of OpenTelemetry's conventions for generative AI.

Names, labels and bucket bounds are those of the conventions (semantic-conventions-genai v0.1.0,
status Development), spelled as OpenTelemetry's exporters for Prometheus spell them. Those of the
conventions' other metrics that are not here are measured by other programs: the client's duration
by clients, and those of agents and tools by frameworks.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric

from slotkeeper.edge.counters import LabeledHistogram
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens

LLAMA_CPP: Final = "llama.cpp"
COMPATIBLE: Final = "openai"
"""Of an external backend: its API is that of OpenAI, whoever runs it."""

Series = tuple[str, str, str]
"""Operation, provider and model."""

_MODEL: Final = "gen_ai_request_model"
_LABELS: Final = ["gen_ai_operation_name", "gen_ai_provider_name", _MODEL]
_MODEL_AT: Final = _LABELS.index(_MODEL)
_TOKENS: Final = tuple(4**power for power in range(14))
_DURATION: Final = tuple(0.01 * 2**power for power in range(14))
# fmt: off
_FIRST_TOKEN: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)
_PER_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
# fmt: on


class GenAiMetrics:
    """Histograms by operation and model. Their series exist from their first use."""

    def __init__(self) -> None:
        self._tokens = LabeledHistogram(
            "gen_ai_client_token_usage",
            "Tokens of a response, as llama-server reported them at its end.",
            [*_LABELS, "gen_ai_token_type"],
            _TOKENS,
        )
        self._duration = LabeledHistogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival at the gateway to its end.",
            [*_LABELS, "error_type"],
            _DURATION,
        )
        self._first_token = LabeledHistogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request's arrival at the gateway to the first event of its stream.",
            _LABELS,
            _FIRST_TOKEN,
        )
        self._per_token = LabeledHistogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per output token after the first one, of a complete stream.",
            _LABELS,
            _PER_TOKEN,
        )

    def finished(self, series: Series, outcome: Outcome, status: int, seconds: float) -> bool:
        """Record a forwarded request; return whether it was successful.

        `status`: of the response, 0 if there was none; `seconds`: from its arrival to its end.
        """
        error = ""
        if outcome is not Outcome.COMPLETED:
            error = outcome.value
        elif status >= 400:
            error = str(status)
        self._duration.observe(seconds, *series, error)
        return not error

    def add_tokens(self, series: Series, tokens: Tokens) -> None:
        """Record the tokens of a response."""
        self._tokens.observe(tokens.prompt + tokens.cached, *series, "input")
        self._tokens.observe(tokens.generated, *series, "output")

    def add_stream(
        self, series: Series, *, first: float, seconds: float, tokens: Tokens | None
    ) -> None:
        """Record a successful stream: the seconds from arrival to its first event and its end."""
        self._first_token.observe(first, *series)
        if tokens and tokens.generated > 1:
            per_token = (seconds - first) / (tokens.generated - 1)
            self._per_token.observe(per_token, *series)

    def collect(self, is_current: Callable[[str], bool]) -> Iterator[Metric]:
        """Return all samples of the models for which `is_current` is true; drop the others."""
        for histogram in (self._tokens, self._duration, self._first_token, self._per_token):
            histogram.keep(lambda labels: is_current(labels[_MODEL_AT]))
            yield histogram.family()
