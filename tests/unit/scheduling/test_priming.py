from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling.priming import (
    CHUNK_SECONDS,
    FIRST_CHUNK_TOKENS,
    MAX_CHUNK_TOKENS,
    MIN_CHUNK_TOKENS,
    MIN_TOKENS,
    Action,
    Placement,
    Primed,
    Tokens,
    common_beginning,
    next_chunk,
    place,
    replaced,
)

prompts = st.lists(st.integers(0, 2), max_size=60).map(tuple)


@given(prompts, prompts)
def test_the_common_beginning_is_the_longest_one(first: Tokens, second: Tokens) -> None:
    common = common_beginning(first, second)
    length = len(common)
    assert first[:length] == second[:length] == common
    assert length in {len(first), len(second)} or first[length] != second[length]


@given(st.integers(1, 100_000), st.none() | st.floats(0.01, 1e6))
def test_chunks_end_at_the_end_and_none_takes_longer_than_a_step(
    total: int, rate: float | None
) -> None:
    done = chunks = 0
    while done < total:
        following = next_chunk(done, total, rate)
        assert done < following <= total
        size = following - done
        assert size <= MAX_CHUNK_TOKENS
        if rate is None:
            assert size <= FIRST_CHUNK_TOKENS
        else:
            assert size <= max(MIN_CHUNK_TOKENS, rate * CHUNK_SECONDS)
        done, chunks = following, chunks + 1
    assert chunks <= total / MIN_CHUNK_TOKENS + 1


def test_beginnings_take_unused_slots_until_there_is_none() -> None:
    first, second, third = ((number,) * 40 for number in range(3))
    primed = [Primed(first, 0)]
    assert place(second, primed, (0, 1), has_cache=False) == Placement(Action.COMPUTE, 1)
    primed.append(Primed(second, 1))
    assert place(third, primed, (0, 1), has_cache=True) == Placement(Action.COMPUTE, None)
    assert place(third, primed, (0, 1), has_cache=False) == Placement(Action.STOP, None)


def test_a_longer_version_replaces_the_shorter_one_and_a_shorter_one_is_skipped() -> None:
    short, long = (1,) * 40, (1,) * 90
    primed = [Primed(short, 1)]
    assert place(long, primed, (0, 1), has_cache=False) == Placement(Action.COMPUTE, 1)
    primed = replaced(primed, Primed(long, 1))
    assert primed == [Primed(long, 1)]
    assert place(short, primed, (0, 1), has_cache=False).action is Action.SKIP
    assert place((9,) * (MIN_TOKENS - 1), primed, (0, 1), has_cache=True).action is Action.SKIP


@given(st.lists(prompts, max_size=8), st.integers(1, 4), st.booleans())
def test_no_slot_loses_a_beginning_for_another_one(
    found: list[Tokens], slots: int, has_cache: bool
) -> None:
    primed: list[Primed] = []
    for tokens in found:
        placed = place(tokens, primed, range(slots), has_cache=has_cache)
        if placed.action is Action.STOP:
            assert len({each.slot for each in primed}) == slots
            break
        if placed.action is Action.COMPUTE:
            before = [
                each for each in primed if each.slot == placed.slot and placed.slot is not None
            ]
            # What a slot held, its new content begins with, but for a token at the seam.
            assert all(
                len(common_beginning(tokens, each.tokens)) >= len(each.tokens) - 8
                for each in before
            )
            primed = replaced(primed, Primed(tokens, placed.slot))
    assert len({each.slot for each in primed if each.slot is not None}) <= slots
