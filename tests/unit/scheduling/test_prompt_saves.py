import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.llamacpp.slots import Slot
from slotkeeper.scheduling.prefix_index import PrefixHashes
from slotkeeper.scheduling.prompt_files import PromptFile, PromptFileIndex
from slotkeeper.scheduling.prompt_saves import (
    IDLE_PER_SAVE_SECOND,
    IDLE_SECONDS,
    MAX_PAUSE_SECONDS,
    WRITE_BYTES_PER_MINUTE,
    Completed,
    ReplicaLoad,
    SaveReason,
    SeenPrompts,
    SlotContent,
    WriteBudget,
    find_slots,
    next_save,
    slot_to_restore_into,
    worth_saving,
)

IDLE = ReplicaLoad(slots=4, busy=0, queued=0)


def completed(
    prefixes: PrefixHashes = (1,), tokens: tuple[int, int, int] = (100, 20, 8), at: float = 0.0
) -> Completed:
    return Completed(prefixes, *tokens, at=at)


def slot(
    number: int = 0,
    tokens: int = 127,
    *,
    task: int | None = 1,
    busy: bool = False,
    numbers: tuple[int, int, int] = (0, 0, 0),
) -> Slot:
    return Slot(number, busy, 512, task, tokens, *numbers)


def content(
    number: int = 0,
    prefixes: PrefixHashes = (1,),
    *,
    seen: int = 1,
    used_at: float = 0.0,
    tokens: int = 127,
) -> SlotContent:
    return SlotContent(slot(number, tokens), prefixes, used_at, seen)


# Slots of requests.


@pytest.mark.parametrize("tokens", [127, 128])
@pytest.mark.parametrize("numbers", [(0, 0, 0), (100, 20, 8)])
def test_a_slot_is_found_by_its_tokens(tokens: int, numbers: tuple[int, int, int]) -> None:
    request, held = completed(), slot(tokens=tokens, numbers=numbers)

    assert find_slots([request], [slot(1, 50), held], {}) == [(request, held)]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(slot(tokens=126), id="fewer tokens"),
        pytest.param(slot(tokens=129), id="more tokens"),
        pytest.param(slot(numbers=(101, 20, 8)), id="other numbers"),
        pytest.param(slot(busy=True), id="busy"),
        pytest.param(slot(task=None), id="unused"),
    ],
)
def test_another_slot_is_not_that_of_the_request(other: Slot) -> None:
    assert find_slots([completed()], [other], {}) == []


def test_a_slot_without_a_new_task_is_not_that_of_the_request() -> None:
    assert find_slots([completed()], [slot()], {0: content()}) == []


def test_one_request_is_not_in_two_slots() -> None:
    assert find_slots([completed()], [slot(0), slot(1)], {}) == []


def test_requests_with_the_same_prompt_may_have_used_one_slot_or_several() -> None:
    first, last = completed(at=1.0), completed(at=2.0)

    assert find_slots([first, last], [slot()], {}) == [(last, slot())]
    assert [each for _, each in find_slots([first, last], [slot(0), slot(1)], {})] == [
        slot(0),
        slot(1),
    ]


def test_of_requests_with_different_prompts_the_slot_is_not_known() -> None:
    assert find_slots([completed((1,)), completed((2,))], [slot()], {}) == []


@given(
    st.lists(
        st.builds(
            completed,
            st.sampled_from([(1,), (2,), (1, 2)]),
            st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)),
        ),
        max_size=5,
    ),
    st.lists(
        st.builds(
            slot,
            st.integers(0, 9),
            st.integers(0, 6),
            task=st.none() | st.integers(0, 3),
            busy=st.booleans(),
        ),
        max_size=5,
        unique_by=lambda each: each.id,
    ),
)
def test_each_slot_that_is_found_has_a_request_that_fits_and_no_rival(
    requests: list[Completed], slots: list[Slot]
) -> None:
    found = find_slots(requests, slots, {})

    assert len({each.id for _, each in found}) == len(found)
    for request, held in found:
        total = request.computed + request.cached + request.generated
        assert held.prompt_tokens in {total, total - 1}
        assert not held.is_processing
        for rival in requests:
            tokens = rival.computed + rival.cached + rival.generated
            assert rival.prefixes == request.prefixes or held.prompt_tokens not in {
                tokens,
                tokens - 1,
            }


def test_the_last_prompts_are_counted() -> None:
    seen = SeenPrompts()
    for prefixes in ((1, 2), (1, 3), (1, 2, 4)):
        seen.record(prefixes)

    assert [seen.count(each) for each in ((1,), (1, 2), (1, 2, 4), (9,))] == [3, 2, 1, 0]

    for prefix in range(100, 5000):
        seen.record((prefix,))
    assert seen.count((1,)) == 0


# Saves.


def index_with(*files: PromptFile) -> PromptFileIndex:
    index = PromptFileIndex()
    index.set_replica("r", "a", files)
    # 1 KiB a token, 10 MiB a second.
    for _ in range(50):
        index.rates.record_write(10 * 2**20, 10 * 1024, 1.0)
    return index


SHORT_SAVE = 1000
LONG_SAVE = 2000


@pytest.mark.parametrize(
    ("load", "held", "reason"),
    [
        pytest.param(IDLE, content(seen=2), SaveReason.REPEATED, id="seen twice"),
        pytest.param(IDLE, content(), None, id="not yet idle"),
        pytest.param(IDLE, content(used_at=-IDLE_SECONDS), SaveReason.IDLE, id="idle"),
        pytest.param(ReplicaLoad(4, 0, 1), content(seen=2), None, id="a request is queued"),
        pytest.param(ReplicaLoad(4, 4, 0), content(seen=2), None, id="no slot is free"),
        pytest.param(
            ReplicaLoad(4, 3, 0),
            content(seen=2, tokens=SHORT_SAVE),
            SaveReason.REPEATED,
            id="a short pause of others",
        ),
        pytest.param(
            ReplicaLoad(4, 3, 0),
            content(seen=2, tokens=LONG_SAVE),
            None,
            id="a long pause of others",
        ),
        pytest.param(IDLE, content(seen=2, tokens=LONG_SAVE), None, id="a long one, just used"),
        pytest.param(
            IDLE,
            content(seen=2, tokens=LONG_SAVE, used_at=-IDLE_SECONDS),
            SaveReason.REPEATED,
            id="a long one, idle",
        ),
        # 1 s.
        pytest.param(IDLE, content(tokens=10 * 1024, used_at=-9.9), None, id="a longer one"),
        pytest.param(
            IDLE, content(tokens=10 * 1024, used_at=-10.1), SaveReason.IDLE, id="a longer one, idle"
        ),
        pytest.param(
            IDLE, content(tokens=10**6, used_at=-60.1), SaveReason.IDLE, id="any, after a minute"
        ),
    ],
)
def test_a_slot_is_saved_by_this_table(
    load: ReplicaLoad, held: SlotContent, reason: SaveReason | None
) -> None:
    found = next_save([held], index_with(), "r", load, WriteBudget(0.0), 0.0)

    assert found == (None if reason is None else (held, reason))


def test_the_first_save_waits_until_nothing_runs() -> None:
    # How long it pauses others is not known.
    held = content(seen=2)

    assert next_save([held], PromptFileIndex(), "r", IDLE, WriteBudget(0.0), 0.0)
    busy = ReplicaLoad(4, 1, 0)
    assert next_save([held], PromptFileIndex(), "r", busy, WriteBudget(0.0), 0.0) is None


def test_what_has_a_file_is_not_saved_and_what_was_sent_most_often_is_first() -> None:
    index = index_with(PromptFile("f", 1, 127, (7,), "a"))
    often, later, sooner = (
        content(1, (2,), seen=5),
        content(2, (3,), used_at=2.0),
        content(3, (4,), used_at=1.0),
    )

    assert worth_saving([sooner, content(0, (7,)), later, often], index, "r") == [
        often,
        later,
        sooner,
    ]


loads = st.builds(ReplicaLoad, st.integers(0, 4), st.integers(0, 4), st.integers(0, 2))


@given(
    loads,
    st.lists(
        st.builds(
            content,
            st.integers(0, 3),
            st.sampled_from([(1,), (2,), (7,)]),
            seen=st.integers(1, 3),
            used_at=st.floats(-10, 0),
            tokens=st.integers(1, 5000),
        ),
        max_size=4,
    ),
)
def test_a_save_delays_no_request(load: ReplicaLoad, contents: list[SlotContent]) -> None:
    index = index_with(PromptFile("f", 1, 5000, (7,), "a"))
    found = next_save(contents, index, "r", load, WriteBudget(0.0), 0.0)

    if found:
        held, reason = found
        assert not load.queued
        assert load.busy < load.slots
        assert held.prefixes != (7,)
        assert not load.busy or index.rates.write_seconds(held.slot.prompt_tokens) <= (
            MAX_PAUSE_SECONDS
        )
        pause = index.rates.write_seconds(held.slot.prompt_tokens)
        idle = -max(each.used_at for each in contents)
        assert pause <= MAX_PAUSE_SECONDS or idle >= max(IDLE_SECONDS, IDLE_PER_SAVE_SECOND * pause)
        assert held.seen > 1 if reason is SaveReason.REPEATED else held.used_at <= -IDLE_SECONDS


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 2 * WRITE_BYTES_PER_MINUTE))))
def test_the_bytes_of_a_minute_are_bounded(writes: list[tuple[float, int]]) -> None:
    now = 0.0
    budget = WriteBudget(now)
    written: list[tuple[float, int]] = []
    for pause, size in writes:
        now += pause
        if budget.allows(size, now):
            budget.spend(size, now)
            written.append((now, size))
    for at, _ in written:
        last_minute = [size for other, size in written if at - 60 < other <= at]
        # What the budget had at its start, what it gained since, and one file beyond it.
        assert sum(last_minute[:-1]) <= 2 * WRITE_BYTES_PER_MINUTE + 1


def test_a_full_budget_allows_a_file_that_is_larger() -> None:
    budget = WriteBudget(0.0)
    assert budget.allows(math.inf, 0.0)

    budget.spend(3 * WRITE_BYTES_PER_MINUTE, 0.0)
    assert not budget.allows(1, 119.0)
    assert budget.allows(1, 121.0)


# Restores.


def test_a_restore_overwrites_the_slot_that_is_worth_the_least() -> None:
    saved = dataclasses.replace(content(2, (2,), seen=9), saved=True)
    often, once = content(3, (3,), seen=9), content(4, (4,), used_at=1.0)
    known = {each.slot.id: each for each in (saved, often, once)}
    by_worth = [
        slot(0, 0, task=None),
        slot(1),
        saved.slot,
        once.slot,
        often.slot,
    ]

    while by_worth:
        assert slot_to_restore_into(reversed(by_worth), known) == by_worth.pop(0)
    assert slot_to_restore_into([slot(busy=True)], known) is None


def test_a_slot_that_was_used_since_is_not_worth_what_it_held() -> None:
    used = slot(0, task=2)

    assert slot_to_restore_into([slot(1, task=1), used], {0: content(0), 1: content(1)}) == used
