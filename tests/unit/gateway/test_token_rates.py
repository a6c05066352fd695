from slotkeeper.gateway.page.token_rates import WINDOW_SECONDS, TokenRates


def test_the_rate_is_the_mean_of_the_last_minute() -> None:
    rates = TokenRates()
    rates.record("qwen", 300, now=1.2)
    rates.record("qwen", 200, now=1.9)
    rates.record("qwen", 100, now=30)

    assert rates.rate("qwen", now=40) == 600 / WINDOW_SECONDS
    assert rates.rate("qwen", now=61.5) == 100 / WINDOW_SECONDS
    assert rates.rate("qwen", now=1000) == 0


def test_a_steady_load_has_its_own_rate() -> None:
    rates = TokenRates()
    for second in range(200):
        rates.record("qwen", 40, now=second)

    assert rates.rate("qwen", now=199) == 40


def test_models_are_counted_apart() -> None:
    rates = TokenRates()
    rates.record("qwen", 60, now=0)

    assert rates.rate("llama", now=0) == 0
    assert rates.rate("qwen", now=0) == 1


def test_deleted_models_are_forgotten() -> None:
    rates = TokenRates()
    rates.record("qwen", 60, now=0)
    rates.record("llama", 60, now=0)
    rates.keep(["llama"])

    assert rates.rate("qwen", now=0) == 0
    assert rates.rate("llama", now=0) == 1


def test_memory_is_bounded_by_the_window() -> None:
    rates = TokenRates()
    for second in range(10_000):
        rates.record("qwen", 1, now=second / 2)

    assert len(rates._rates["qwen"]._seconds) <= WINDOW_SECONDS
