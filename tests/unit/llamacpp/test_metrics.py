import pytest

from slotkeeper.llamacpp.metrics import Series, SummedMetrics, parse_metrics

BODY = b"""# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 20
# HELP llamacpp:prompt_tokens_seconds Average prompt throughput in tokens/s
# TYPE llamacpp:prompt_tokens_seconds gauge
llamacpp:prompt_tokens_seconds 149.937
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 608
"""


def counter(value: float) -> Series:
    return Series("counter", "", value)


def gauge(value: float) -> Series:
    return Series("gauge", "", value)


def values(summed: SummedMetrics) -> dict[str, float]:
    return {name: series.value for name, series in summed.total().items()}


def test_llama_servers_metrics_are_parsed() -> None:
    assert parse_metrics(BODY) == {
        "llamacpp:prompt_tokens_total": Series("counter", "Number of prompt tokens processed", 20),
        "llamacpp:prompt_tokens_seconds": Series(
            "gauge", "Average prompt throughput in tokens/s", 149.937
        ),
        "llamacpp:n_tokens_max": Series("counter", "", 608),
    }


@pytest.mark.parametrize(
    "line",
    [
        b"llamacpp:x nan",
        b"llamacpp:x 1e400",
        b"llamacpp:x " + b"9" * 5000,
        b'llamacpp:x{a="b"} 1',
        b"other:x 1",
        b"llamacpp:untyped 1",
        b"\xff\x00",
    ],
)
def test_what_cannot_be_read_is_left_out(line: bytes) -> None:
    parsed = parse_metrics(b"# TYPE llamacpp:x gauge\n" + line + b"\n" + BODY)

    assert parsed == parse_metrics(BODY)


def test_a_huge_response_is_ignored() -> None:
    assert parse_metrics(BODY + b"#" * 300_000) == {}


def test_replicas_are_summed_and_rates_are_averaged() -> None:
    summed = SummedMetrics()
    for name, count, most, rate in (("a", 3, 10, 50.0), ("b", 4, 7, 100.0), ("c", 0, 0, 0.0)):
        summed.update(
            name,
            {
                "llamacpp:n_total": counter(count),
                "llamacpp:n_tokens_max": counter(most),
                "llamacpp:prompt_tokens_seconds": gauge(rate),
                "llamacpp:n_busy_slots_per_decode": gauge(1.5),
            },
        )

    assert values(summed) == {
        "llamacpp:n_total": 7,
        "llamacpp:n_tokens_max": 10,
        "llamacpp:prompt_tokens_seconds": 75,
        "llamacpp:n_busy_slots_per_decode": 4.5,
    }


def test_counters_never_go_down() -> None:
    summed = SummedMetrics()
    summed.update("a", {"n_total": counter(10), "n_max": counter(9), "busy": gauge(1)})
    summed.update("b", {"n_total": counter(5), "n_max": counter(3), "busy": gauge(2)})
    summed.update("a", {"n_total": counter(1), "n_max": counter(1), "busy": gauge(0)})  # restarted
    assert values(summed) == {"n_total": 16, "n_max": 9, "busy": 2}

    summed.keep(["a"])
    assert values(summed) == {"n_total": 16, "n_max": 9, "busy": 0}
