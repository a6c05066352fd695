from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling import prefix_hashes
from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, PrefixIndex

KIB = 1024


def test_a_prompt_has_a_hash_for_each_size_that_it_reaches() -> None:
    sizes = [
        len(prefix_hashes(b"x" * size))
        for size in (0, KIB - 1, KIB, 5 * KIB, 64 * KIB - 1, 64 * KIB, 500 * KIB)
    ]

    assert sizes == [0, 0, 1, 3, len(PREFIX_SIZES) - 1, len(PREFIX_SIZES), len(PREFIX_SIZES)]
    assert [each >> 32 for each in prefix_hashes(b"x" * 500 * KIB)] == list(PREFIX_SIZES)


@given(st.binary(min_size=1, max_size=9), st.binary(max_size=9), st.integers(0, 70))
def test_a_prompt_that_grows_keeps_its_hashes(begin: bytes, end: bytes, kib: int) -> None:
    prompt = begin * (kib * KIB // len(begin))
    first, second = prefix_hashes(prompt), prefix_hashes(prompt + end * KIB)

    assert second[: len(first)] == first


def test_prompts_share_the_hashes_before_their_first_difference() -> None:
    one, other = (prefix_hashes(b"x" * 5 * KIB + mark + b"x" * 20 * KIB) for mark in (b"a", b"b"))

    assert one[:3] == other[:3]
    assert not set(one[3:]) & set(other[3:])


def test_prompts_with_other_settings_share_no_hash() -> None:
    prompt = b"x" * 64 * KIB
    hashes = [prefix_hashes(prompt, settings) for settings in ([], [b"a"], [b"b"], [b"b", b"a"])]

    assert len({each for some in hashes for each in some}) == 4 * len(PREFIX_SIZES)
    assert prefix_hashes(prompt, [b"b", b"a"]) == hashes[3]


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
