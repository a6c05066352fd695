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


def test_a_prompt_has_a_rung_for_each_size_that_it_reaches() -> None:
    sizes = [
        len(prefix_hashes(chat("x" * size))) for size in (100, KIB, 5 * KIB, 70 * KIB, 500 * KIB)
    ]

    assert sizes == [0, 1, 3, len(PREFIX_SIZES), len(PREFIX_SIZES)]
    assert [rung >> 32 for rung in prefix_hashes(chat("x" * 500 * KIB))] == list(PREFIX_SIZES)


def test_a_conversation_that_goes_on_keeps_its_rungs() -> None:
    first = prefix_hashes(chat("x" * 3000))
    second = prefix_hashes(chat("x" * 3000, "y" * 6000))

    assert second[: len(first)] == first
    assert len(second) > len(first)


def test_prompts_that_differ_share_the_rungs_before_they_do() -> None:
    one, other = (prefix_hashes(chat("x" * 5 * KIB + mark + "x" * 20 * KIB)) for mark in "ab")

    assert one[:3] == other[:3]
    assert not set(one[3:]) & set(other[3:])


def test_what_stands_before_the_prompt_does_not_matter() -> None:
    assert prefix_hashes(chat("x" * KIB, seed=1)) == prefix_hashes(
        chat("x" * KIB, seed=2, stream=True)
    )


@pytest.mark.parametrize("key", ["prompt", "messages", "input", "input_prefix"])
@pytest.mark.parametrize("colon", [":", " : ", ":\n\t"])
def test_each_key_that_holds_a_prompt_is_found(key: str, colon: str) -> None:
    body = f'{{"seed": 7, "{key}"{colon}"{"x" * KIB}"}}'.encode()

    assert prefix_hashes(body) == prefix_hashes(b'{"prompt":"%s"}' % (b"x" * KIB))


def test_a_key_inside_of_a_text_is_no_key() -> None:
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
def test_what_has_no_prompt_to_be_found_has_no_rungs(body: bytes) -> None:
    assert prefix_hashes(body) == ()


@given(st.binary(max_size=50), st.binary(min_size=KIB, max_size=3 * KIB))
def test_any_bytes_before_and_in_a_prompt_will_do(before: bytes, prompt: bytes) -> None:
    assert 1 <= len(prefix_hashes(before + b'"prompt":' + b"x" + prompt)) <= 2


def test_the_longest_beginning_that_is_known_decides() -> None:
    prefixes = PrefixIndex()
    prefixes.remember("a", (1, 2), 9)
    prefixes.remember("b", (1, 2, 3), 9)

    assert set(prefixes.replicas_with((1, 2, 3, 4))) == {"b"}
    assert set(prefixes.replicas_with((1, 2, 7))) == {"a", "b"}
    assert set(prefixes.replicas_with((9, 8))) == set()


def test_a_prompt_that_grows_is_one_prompt() -> None:
    prefixes = PrefixIndex()
    prefixes.remember("a", (9,), 2)
    for length in range(1, 5):
        prefixes.remember("a", tuple(range(1, 1 + length)), 2)

    assert prefixes.remembered == {"a": 2}
    assert set(prefixes.replicas_with((9,))) == {"a"}


def test_the_prompt_that_rested_longest_is_forgotten_first() -> None:
    prefixes = PrefixIndex()
    for prompt in ((1,), (2,), (1,), (3,)):
        prefixes.remember("a", prompt, 2)

    assert [bool(prefixes.replicas_with((rung,))) for rung in (1, 2, 3)] == [True, False, True]


PROMPTS = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(
    lambda marks: tuple(int("".join(map(str, marks[: at + 1]))) for at in range(len(marks)))
)


@given(st.lists(st.tuples(st.sampled_from("ab"), PROMPTS), max_size=40), st.integers(1, 4))
def test_the_index_says_what_the_remembered_prompts_say(
    sent: list[tuple[str, tuple[int, ...]]], capacity: int
) -> None:
    prefixes = PrefixIndex()
    model: dict[str, list[tuple[int, ...]]] = {"a": [], "b": []}
    for replica, prompt in sent:
        prefixes.remember(replica, prompt, capacity)
        kept = [each for each in model[replica] if each != prompt[: len(each)]]
        model[replica] = [*kept, prompt][-capacity:]

        for rung in prompt:
            holders = {name for name, kept in model.items() if any(rung in each for each in kept)}
            assert set(prefixes.replicas_with((rung,))) == holders
    for replica in model:
        prefixes.forget(replica)
    assert prefixes.remembered == {}
    assert not prefixes._holders
