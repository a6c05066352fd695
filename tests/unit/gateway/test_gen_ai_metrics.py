"""Names, labels and buckets are those of OpenTelemetry's conventions."""

import pytest
from prometheus_client.core import Metric

from slotkeeper.api.paths import PROXIED, Cost
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens
from slotkeeper.gateway.gen_ai_metrics import GenAiMetrics
from slotkeeper.gateway.operations import operation

SERIES = ("chat", "llama.cpp", "qwen")
COMMON = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "llama.cpp",
    "gen_ai_request_model": "qwen",
}


def recorded() -> GenAiMetrics:
    metrics = GenAiMetrics()
    metrics.finished(SERIES, Outcome.COMPLETED, 200, 3.0)
    metrics.add_tokens(SERIES, Tokens(prompt=10, cached=5, generated=11))
    metrics.add_stream(SERIES, first=1.0, seconds=3.0, tokens=Tokens(generated=11))
    return metrics


def families(metrics: GenAiMetrics, *models: str) -> dict[str, Metric]:
    return {family.name: family for family in metrics.collect(models.__contains__)}


@pytest.mark.parametrize(
    ("name", "labels", "total", "bounds"),
    [
        (
            "gen_ai_client_token_usage",
            {"gen_ai_token_type": "input"},
            15,
            "1 4 16 64 256 1024 4096 16384 65536 262144 1048576 4194304 16777216 67108864",
        ),
        ("gen_ai_client_token_usage", {"gen_ai_token_type": "output"}, 11, ""),
        (
            "gen_ai_server_request_duration_seconds",
            {"error_type": ""},
            3.0,
            "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92",
        ),
        (
            "gen_ai_server_time_to_first_token_seconds",
            {},
            1.0,
            "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10",
        ),
        (
            "gen_ai_server_time_per_output_token_seconds",
            {},
            0.2,
            "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5",
        ),
    ],
)
def test_each_histogram_has_the_labels_and_bounds_of_the_convention(
    name: str, labels: dict[str, str], total: float, bounds: str
) -> None:
    samples = families(recorded(), "qwen")[name].samples
    expected = {**COMMON, **labels}

    found = {sample.name: sample for sample in samples if sample.labels == expected}
    assert found[f"{name}_sum"].value == pytest.approx(total)
    buckets = [
        float(sample.labels["le"])
        for sample in samples
        if {**sample.labels, "le": ""} == {**expected, "le": ""}
        and sample.labels.get("le", "+Inf") != "+Inf"
    ]
    if bounds:
        assert buckets == pytest.approx([float(each) for each in bounds.split()])


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (Outcome.COMPLETED, 200, ""),
        (Outcome.COMPLETED, 503, "503"),
        (Outcome.ABORTED, 200, "aborted"),
        (Outcome.TIMED_OUT, 504, "timed_out"),
        (Outcome.CLIENT_DISCONNECTED, 0, "client_disconnected"),
    ],
)
def test_the_type_of_an_error_is_its_status_or_outcome(
    outcome: Outcome, status: int, error: str
) -> None:
    metrics = GenAiMetrics()

    assert metrics.finished(SERIES, outcome, status, 1.0) == (not error)

    family = families(metrics, "qwen")["gen_ai_server_request_duration_seconds"]
    assert {sample.labels["error_type"] for sample in family.samples} == {error}


@pytest.mark.parametrize("tokens", [None, Tokens(generated=1)])
def test_a_stream_without_a_second_token_has_no_time_per_token(tokens: Tokens | None) -> None:
    metrics = GenAiMetrics()
    metrics.add_stream(SERIES, first=1.0, seconds=3.0, tokens=tokens)

    assert not families(metrics, "qwen")["gen_ai_server_time_per_output_token_seconds"].samples


def test_the_series_of_deleted_models_are_dropped() -> None:
    assert not any(family.samples for family in families(recorded(), "another").values())


def test_each_path_that_uses_a_slot_has_an_operation_except_audio() -> None:
    without = {
        path
        for path, cost in PROXIED.items()
        if cost is not Cost.NONE and operation(path.encode()) is None
    }

    assert without == {"/audio/transcriptions", "/v1/audio/transcriptions"}
    assert all(
        operation(path.encode()) is None for path, cost in PROXIED.items() if cost is Cost.NONE
    )
