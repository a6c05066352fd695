import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling import prefix_hashes
from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, PrefixIndex

KIB = 1024


def chat(*texts: str, **fields: object) -> bytes:
    messages = [{"role": "user", "content": text} for text in texts]
    return json.dumps({**fields, "messages": messages}).encode()


def test_a_prompt_has_a_hash_for_each_size_that_it_reaches() -> None:
    sizes = [
        len(prefix_hashes(chat("x" * size))) for size in (100, KIB, 5 * KIB, 70 * KIB, 500 * KIB)
    ]

    assert sizes == [0, 1, 3, len(PREFIX_SIZES), len(PREFIX_SIZES)]
    assert [each >> 32 for each in prefix_hashes(chat("x" * 500 * KIB))] == list(PREFIX_SIZES)


def test_a_conversation_that_grows_keeps_its_hashes() -> None:
    first = prefix_hashes(chat("x" * 3000))
    second = prefix_hashes(chat("x" * 3000, "y" * 6000))

    assert second[: len(first)] == first
    assert len(second) > len(first)


def test_prompts_share_the_hashes_before_their_first_difference() -> None:
    one, other = (prefix_hashes(chat("x" * 5 * KIB + mark + "x" * 20 * KIB)) for mark in "ab")

    assert one[:3] == other[:3]
    assert not set(one[3:]) & set(other[3:])


def test_fields_before_the_prompt_do_not_matter() -> None:
    assert prefix_hashes(chat("x" * KIB, seed=1)) == prefix_hashes(
        chat("x" * KIB, seed=2, stream=True)
    )


@pytest.mark.parametrize("key", ["prompt", "messages", "input", "input_prefix"])
@pytest.mark.parametrize("colon", [":", " : ", ":\n\t"])
def test_each_key_that_may_have_a_prompt_is_found(key: str, colon: str) -> None:
    body = f'{{"seed": 7, "{key}"{colon}"{"x" * KIB}"}}'.encode()

    assert prefix_hashes(body) == prefix_hashes(b'{"prompt":"%s"}' % (b"x" * KIB))


def test_a_key_within_a_string_is_not_found() -> None:
    before = {"user": '"prompt": "messages":'}

    assert prefix_hashes(chat("x" * KIB, **before)) == prefix_hashes(chat("x" * KIB))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x" * 2000,
        b"{}" * 2000,
        b'"prompt":' + b"x",
        b" " * 300_000 + b'"prompt":' + b"x" * KIB,
    ],
)
def test_a_body_without_a_prompt_has_no_hashes(body: bytes) -> None:
    assert prefix_hashes(body) == ()


@given(st.binary(max_size=50), st.binary(min_size=KIB, max_size=3 * KIB))
def test_any_bytes_may_be_before_and_in_a_prompt(before: bytes, prompt: bytes) -> None:
    assert 1 <= len(prefix_hashes(before + b'"prompt":' + b"x" + prompt)) <= 2


def test_the_longest_cached_prefix_decides() -> None:
    index = PrefixIndex()
    index.record("a", (1, 2), 9)
    index.record("b", (1, 2, 3), 9)

    assert set(index.replicas_with((1, 2, 3, 4))) == {"b"}
    assert set(index.replicas_with((1, 2, 7))) == {"a", "b"}
    assert set(index.replicas_with((9, 8))) == set()


def test_a_prompt_that_grows_is_one_prompt() -> None:
    index = PrefixIndex()
    index.record("a", (9,), 2)
    for length in range(1, 5):
        index.record("a", tuple(range(1, 1 + length)), 2)

    assert index.prompt_counts == {"a": 2}
    assert set(index.replicas_with((9,))) == {"a"}


def test_the_least_recently_used_prompt_is_evicted_first() -> None:
    index = PrefixIndex()
    for prompt in ((1,), (2,), (1,), (3,)):
        index.record("a", prompt, 2)

    assert [bool(index.replicas_with((prefix,))) for prefix in (1, 2, 3)] == [True, False, True]


PROMPTS = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(
    lambda marks: tuple(int("".join(map(str, marks[: at + 1]))) for at in range(len(marks)))
)


@given(st.lists(st.tuples(st.sampled_from("ab"), PROMPTS), max_size=40), st.integers(1, 4))
def test_the_index_agrees_with_a_list_of_the_last_prompts(
    sent: list[tuple[str, tuple[int, ...]]], capacity: int
) -> None:
    index = PrefixIndex()
    model: dict[str, list[tuple[int, ...]]] = {"a": [], "b": []}
    for replica, prompt in sent:
        index.record(replica, prompt, capacity)
        kept = [each for each in model[replica] if each != prompt[: len(each)]]
        model[replica] = [*kept, prompt][-capacity:]

        for prefix in prompt:
            replicas = {
                name for name, kept in model.items() if any(prefix in each for each in kept)
            }
            assert set(index.replicas_with((prefix,))) == replicas
    for replica in model:
        index.remove(replica)
    assert index.prompt_counts == {}
    assert not index._replicas
