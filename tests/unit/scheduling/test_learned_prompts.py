import json

from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.primed_prompts import PromptKind
from slotkeeper.scheduling.learned_prompts import (
    MAX_BODY_BYTES,
    MAX_LEARNED,
    Learned,
    LearnedPrompts,
)
from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, prefix_hashes

CHAT = PromptKind.CHAT
HOUR = 3600.0


def record(learned: LearnedPrompts, text: str, now: float = 0.0, kind: PromptKind = CHAT) -> None:
    learned.record(kind, text.encode(), prefix_hashes(text.encode()), now)


def beginning(found: Learned) -> tuple[int, set[str]]:
    """The size of a beginning, and what is left of the requests after it."""
    size = PREFIX_SIZES[len(found.prefixes) - 1]
    return size, {each.body.decode()[size:][:1] for each in (found.first, found.second)}


def test_what_two_requests_share_is_learned() -> None:
    learned = LearnedPrompts()
    system = "s" * 5000
    record(learned, system + "a")
    assert learned.hottest(0) == []
    record(learned, system + "a")
    assert learned.hottest(0) == []  # the same request again

    record(learned, system + "b")

    [found] = learned.hottest(0)
    assert beginning(found)[0] == 4096
    assert found.first.body != found.second.body


def test_a_conversation_and_a_system_prompt_are_both_learned() -> None:
    learned = LearnedPrompts()
    system, talk = "s" * 2048, "t" * 30_000
    for number in range(20):
        record(learned, f"{system}{number}{number}" * 2)
    for end in "ab":
        record(learned, system + talk + end)

    longest, *others = [beginning(each)[0] for each in learned.hottest(0)]
    assert {longest, *others} == {2048, 16384}


def test_frequent_and_recent_beginnings_come_first() -> None:
    learned = LearnedPrompts()
    for name, count in (("a", 3), ("b", 9), ("c", 2)):
        for number in range(count):
            record(learned, name * 1500 + str(number))
    assert [each.first.body[:1] for each in learned.hottest(0)] == [b"b", b"a", b"c"]

    for number in range(4):
        record(learned, "c" * 1500 + f"later {number}", 2 * HOUR)
    assert next(iter(learned.hottest(2 * HOUR))).first.body[:1] == b"c"
    assert learned.hottest(40 * HOUR) == []


def test_chats_and_texts_are_not_mixed() -> None:
    learned = LearnedPrompts()
    record(learned, "s" * 1500 + "a", kind=PromptKind.TEXT)
    record(learned, "s" * 1500 + "b", kind=CHAT)
    assert learned.hottest(0) == []


def test_large_and_short_requests_are_not_kept() -> None:
    learned = LearnedPrompts()
    for text in ("s" * (MAX_BODY_BYTES + 1), "short"):
        record(learned, text + "a")
        record(learned, text + "b")
    assert (learned.hottest(0), learned.bytes) == ([], 0)


def test_a_discarded_beginning_is_forgotten() -> None:
    learned = LearnedPrompts()
    for end in "ab":
        record(learned, "s" * 1100 + end)
    [found] = learned.hottest(0)
    learned.discard(found.prefixes)
    assert (learned.hottest(0), learned.bytes) == ([], 0)


requests = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 9000), st.integers(0, 50), st.floats(0, HOUR)),
    max_size=40,
)


@given(requests, st.integers(0, 40_000))
def test_memory_is_bounded_and_what_is_learned_is_shared(
    found: list[tuple[str, int, int, float]], limit: int
) -> None:
    learned = LearnedPrompts(limit)
    now = 0.0
    for letter, size, end, seconds in found:
        now += seconds
        record(learned, json.dumps([letter * size, end]), now)
        assert learned.bytes <= limit
        kept = {
            each.digest: len(each.body)
            for beginning in learned._beginnings.values()
            for each in beginning.samples
        }
        assert sum(kept.values()) == learned.bytes
    hottest = learned.hottest(now)
    assert len(hottest) <= MAX_LEARNED
    for each in hottest:
        size = PREFIX_SIZES[len(each.prefixes) - 1]
        assert each.first.body != each.second.body
        assert each.first.body[:size] == each.second.body[:size]
    learned.clear()
    assert learned.bytes == 0
