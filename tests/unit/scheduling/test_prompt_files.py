import math
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, PrefixHashes, PrefixIndex
from slotkeeper.scheduling.prompt_files import (
    MAX_RESTORE_SECONDS,
    Outcome,
    PromptFile,
    PromptFileIndex,
    RestorePlan,
    RestoreRecord,
)
from slotkeeper.scheduling.prompt_rates import PromptRates

MIB = 2**20
SIZE = 4096


def file(
    name: str = "f",
    prefixes: Iterable[int] = (1, 2, 3),
    *,
    bytes_: int = 16 * MIB,
    tokens: int = 1000,
    compatible: str = "a",
) -> PromptFile:
    return PromptFile(name, bytes_, tokens, tuple(prefixes), compatible)


def index(*files: PromptFile, replica: str = "r") -> PromptFileIndex:
    created = PromptFileIndex()
    created.set_replica(replica, "a", files)
    return created


def shared_name(found: tuple[PromptFile, int] | None) -> tuple[str, int] | None:
    return found and (found[0].name, found[1])


# The index.


def test_the_file_with_the_longest_common_beginning_is_found() -> None:
    files = index(file("long", (1, 2, 3)), file("short", (1, 2)), file("other", (1, 9, 8)))

    assert shared_name(files.longest("r", (1, 2, 3, 4))) == ("long", 3)
    assert shared_name(files.longest("r", (1, 2, 7))) == ("short", 2)
    assert files.longest("r", (1, 2, 3), beyond=3) is None
    assert files.longest("r", (5, 6)) is None
    assert files.longest("another", (1, 2, 3)) is None


def test_among_equal_files_the_newest_is_found() -> None:
    files = index(file("new"), file("old"))
    assert shared_name(files.longest("r", (1, 2, 3))) == ("new", 3)

    files.add("r", file("newer"))
    assert shared_name(files.longest("r", (1, 2, 3))) == ("newer", 3)


@pytest.mark.parametrize("wrong", [file(compatible="b"), file(prefixes=())])
def test_a_file_that_the_replica_cannot_use_is_left_out(wrong: PromptFile) -> None:
    assert index(wrong).names("r") == frozenset()


def test_a_file_is_covered_by_one_of_the_same_prompt_with_nearly_as_many_tokens() -> None:
    files = index(file(tokens=900))

    assert files.covers("r", (1, 2, 3), 1000)
    assert not files.covers("r", (1, 2, 3), 1001)
    assert not files.covers("r", (1, 2), 100)


def test_a_longer_file_replaces_shorter_ones_of_the_same_conversation() -> None:
    grown = file("grown", (1, 2, 3), tokens=1000)
    files = index(
        grown,
        file("half", (1, 2), tokens=500),
        file("far shorter", (1, 2), tokens=499),
        file("other", (1, 9), tokens=900),
    )

    assert [each.name for each in files.superseded("r", grown)] == ["half"]


REPLICAS = ("r", "s", "t")
chains = st.sampled_from([(1,), (1, 2), (1, 2, 3), (1, 9), (1, 9, 8), (5,), (5, 6), ()])
any_files = st.builds(
    PromptFile,
    name=st.sampled_from("abcdefgh"),
    bytes=st.integers(1, 100 * MIB),
    tokens=st.integers(1, 5000),
    prefixes=chains,
    compatible=st.sampled_from("xy"),
)


class AnyChangesOfFolders(RuleBasedStateMachine):
    """The index is compared with plain dictionaries of each replica's folder."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PromptFileIndex()
        self.compatible: dict[str, str] = {}
        self.folders: dict[str, dict[str, PromptFile]] = {}

    @rule(
        replica=st.sampled_from(REPLICAS),
        compatible=st.sampled_from("xy"),
        files=st.lists(any_files, max_size=8, unique_by=lambda each: each.name),
    )
    def list_folder(self, replica: str, compatible: str, files: list[PromptFile]) -> None:
        self.index.set_replica(replica, compatible, files)
        self.compatible[replica] = compatible
        self.folders[replica] = {}
        for each in files:
            self._put(replica, each)

    @rule(replica=st.sampled_from(REPLICAS), new=any_files)
    def save(self, replica: str, new: PromptFile) -> None:
        self.index.add(replica, new)
        if replica in self.folders:
            self._put(replica, new)

    @rule(replica=st.sampled_from(REPLICAS), name=st.sampled_from("abcdefgh"))
    def drop(self, replica: str, name: str) -> None:
        self.index.discard(replica, name)
        self.folders.get(replica, {}).pop(name, None)

    @rule(replica=st.sampled_from(REPLICAS))
    def leave(self, replica: str) -> None:
        self.index.remove_replica(replica)
        self.folders.pop(replica, None)
        self.compatible.pop(replica, None)

    def _put(self, replica: str, new: PromptFile) -> None:
        if not new.prefixes or new.compatible != self.compatible[replica]:
            return
        # A name is of one content: another replica's file of this name has been replaced too.
        for folder in self.folders.values():
            if new.name in folder:
                folder[new.name] = new
        self.folders[replica][new.name] = new

    @invariant()
    def names_are_those_of_the_folder(self) -> None:
        for replica in REPLICAS:
            assert self.index.names(replica) == set(self.folders.get(replica, {}))

    @invariant()
    def the_longest_is_the_best_of_the_folder(self) -> None:
        for replica in REPLICAS:
            folder = self.folders.get(replica, {}).values()
            for prompt in [(1, 2, 3, 4), (1, 9, 8), (5, 6), (7,)]:
                found = self.index.longest(replica, prompt)
                best = max((common(each.prefixes, prompt) for each in folder), default=0)
                assert (found[1] if found else 0) == best
                if found:
                    assert found[0] in folder
                    assert common(found[0].prefixes, prompt) == best


def common(first: PrefixHashes, second: PrefixHashes) -> int:
    return max((n for n in range(1, 8) if first[:n] == second[:n] and len(first) >= n), default=0)


TestAnyChangesOfFolders = AnyChangesOfFolders.TestCase
TestAnyChangesOfFolders.settings = settings(stateful_step_count=20, deadline=None)


def test_the_memory_of_a_replica_holds_the_beginnings_of_what_was_sent_to_it() -> None:
    memory = PrefixIndex()
    memory.record("r", (1, 2, 3), 4)

    held = [memory.held_by("r", each) for each in ((1, 2, 3, 4), (1, 2, 9), (9,), ())]
    assert held == [3, 2, 0, 0]
    assert memory.held_by("s", (1,)) == 0


# Plans.


def test_a_file_is_restored_if_that_is_quicker() -> None:
    plan = index(file()).plan("r", (1, 2, 3), SIZE, 0, 0.0)

    assert plan == RestorePlan(file(), 3, 0, SIZE, MAX_RESTORE_SECONDS)


@pytest.mark.parametrize(
    ("files", "in_memory", "size"),
    [
        pytest.param(index(file()), 3, SIZE, id="the memory holds as much"),
        pytest.param(index(file()), 0, 100 * SIZE, id="a small part of the prompt"),
        pytest.param(index(file(bytes_=2000 * MIB)), 0, SIZE, id="a large file"),
        pytest.param(index(file(tokens=4)), 0, SIZE, id="few tokens"),
        pytest.param(index(), 0, SIZE, id="no file"),
    ],
)
def test_a_request_is_sent_without_a_restore(
    files: PromptFileIndex, in_memory: int, size: int
) -> None:
    assert files.plan("r", (1, 2, 3), size, in_memory, 0.0) is None


def test_of_a_longer_prompt_than_is_hashed_the_tokens_count() -> None:
    prefixes = tuple(range(1, len(PREFIX_SIZES) + 1))
    long = file(prefixes=prefixes, tokens=100_000)

    assert index(long).plan("r", prefixes, 1_000_000, 0, 0.0)


@given(
    st.lists(any_files, max_size=8, unique_by=lambda each: each.name),
    chains,
    st.integers(1, 100_000),
    st.integers(0, 3),
    st.floats(1, 10_000),
    st.floats(1e3, 1e10),
)
def test_a_plan_gains_time_and_ends_in_time(
    files: list[PromptFile],
    prefixes: PrefixHashes,
    size: int,
    in_memory: int,
    compute: float,
    read: float,
) -> None:
    created = PromptFileIndex()
    created.rates = PromptRates(tokens_per_second=compute, bytes_per_second=read)
    created.set_replica("r", "x", files)
    in_memory = min(in_memory, len(prefixes))
    plan = created.plan("r", prefixes, size, in_memory, 0.0)

    if plan:
        assert plan.file.compatible == "x"
        assert plan.shared > in_memory
        assert plan.file.prefixes[: plan.shared] == prefixes[: plan.shared]
        assert plan.file.bytes / read < plan.deadline <= MAX_RESTORE_SECONDS


# What became of them.


@pytest.mark.parametrize(
    ("in_memory", "shared", "cached", "honored"),
    [
        pytest.param(0, 3, 1000, True, id="all"),
        pytest.param(0, 3, 250, True, id="as much as is certain"),
        pytest.param(0, 3, 0, False, id="nothing"),
        pytest.param(0, 3, 100, False, id="next to nothing"),
        pytest.param(1, 3, 1000, True, id="more than the memory has"),
        pytest.param(1, 3, 500, False, id="what the memory has"),
        pytest.param(2, 3, 500, None, id="the memory may have as much"),
    ],
)
def test_a_restore_is_honored_if_the_tokens_are_found(
    in_memory: int, shared: int, cached: int, honored: bool | None
) -> None:
    plan = RestorePlan(file(), shared, in_memory, SIZE, 1.0)

    assert plan.is_honored(cached, 1000 - cached) is honored


def test_after_a_restore_that_was_honored_it_takes_twenty_failures_in_a_row() -> None:
    files = index(file())
    record = RestoreRecord(files)
    plan = RestorePlan(file(), 3, 0, SIZE, 1.0)
    for cached in (0, 0, 900, *[0] * 19, 900, *[0] * 19):
        record.record(plan, cached, 1000 - cached, 0.0)
    assert files.plan("r", (1, 2, 3), SIZE, 0, 0.0)

    record.record(plan, 0, 1000, 0.0)
    assert files.plan("r", (1, 2, 3), SIZE, 0, 599.0) is None
    assert files.plan("r", (1, 2, 3), SIZE, 0, 600.0)


def test_three_failures_from_the_first_restore_on_end_restoring_for_a_day() -> None:
    files = index(file())
    record = RestoreRecord(files)
    plan = RestorePlan(file(), 3, 0, SIZE, 1.0)
    unknown = RestorePlan(file(), 3, 2, SIZE, 1.0)
    for cached, of in ((0, plan), (500, unknown), (0, plan)):
        record.record(of, cached, 1000 - cached, 0.0)
    assert files.plan("r", (1, 2, 3), SIZE, 0, 0.0)

    record.record(plan, 0, 1000, 0.0)
    day = 86400.0
    assert files.plan("r", (1, 2, 3), SIZE, 0, day - 1) is None
    assert "3 restored prompts in a row" in (files.why_unusable("a", day - 1) or "")
    assert files.why_unusable("b", 0.0) is None
    assert files.plan("r", (1, 2, 3), SIZE, 0, day)

    record.record(plan, 0, 1000, day)
    assert files.plan("r", (1, 2, 3), SIZE, 0, 2 * day - 1) is None


def test_a_file_that_was_not_used_twice_is_useless() -> None:
    record = RestoreRecord(index(file()))
    plan, other = (RestorePlan(file(name), 3, 0, SIZE, 1.0) for name in ("f", "g"))
    outcomes = [
        record.record(of, cached, 1000 - cached, 0.0)
        for of, cached in ((plan, 0), (other, 0), (plan, 900), (plan, 0), (plan, 0), (other, 0))
    ]

    assert outcomes == [
        Outcome.NOT_HONORED,
        Outcome.NOT_HONORED,
        Outcome.GAINED,
        Outcome.NOT_HONORED,
        Outcome.USELESS_FILE,
        Outcome.USELESS_FILE,
    ]


def test_the_files_that_failed_are_bounded() -> None:
    record = RestoreRecord(index(file()))
    for number in range(2000):
        record.record(RestorePlan(file(str(number)), 3, 0, SIZE, 1.0), 0, 1000, 0.0)

    first = RestorePlan(file("0"), 3, 0, SIZE, 1.0)
    assert record.record(first, 0, 1000, 0.0) is Outcome.NOT_HONORED


def test_the_tokens_of_the_last_hour_are_counted() -> None:
    record = RestoreRecord(index(file()))
    plan = RestorePlan(file(tokens=800), 3, 0, SIZE, 1.0)
    for minute in range(90):
        for _ in range(2):
            record.record(plan, 900, 100, 60.0 * minute)

    assert record.tokens_last_hour(60.0 * 89) == 60 * 2 * 800
    assert record.tokens_last_hour(60.0 * 200) == 0


# Rates.


def test_rates_follow_what_is_measured() -> None:
    rates = PromptRates()
    for _ in range(50):
        rates.record_compute(1000, 1.0)
        rates.record_read(100 * MIB, 1.0, 0.0)
        rates.record_write(100 * MIB, 1000, 2.0)

    assert rates.compute_seconds(500) == pytest.approx(0.5, rel=0.01)
    assert rates.read_seconds(50 * MIB, 0.0) == pytest.approx(0.5, rel=0.01)
    assert rates.write_seconds(500) == pytest.approx(1.0, rel=0.01)


def test_small_measurements_are_left_out() -> None:
    rates = PromptRates()
    rates.record_compute(3, 1.0)
    rates.record_read(100, 1.0, 0.0)
    rates.record_write(100, 10, 1.0)

    assert rates.tokens_per_second == 100
    assert rates.read_rate(0.0) == 200e6
    assert rates.bytes_per_token == 10
    assert rates.write_seconds(10) == math.inf


def test_the_size_of_a_file_is_learned_once() -> None:
    rates = PromptRates()
    rates.learn_size(100, 10)
    rates.learn_size(100, 1)

    assert rates.bytes_per_token == 10


def test_a_read_that_was_given_up_is_not_tried_again_soon() -> None:
    files = index(file())
    files.rates.record_slow_read(file().bytes, MAX_RESTORE_SECONDS, 0.0)

    assert files.plan("r", (1, 2, 3), SIZE, 0, 0.0) is None
    assert files.plan("r", (1, 2, 3), SIZE, 0, 3600.0)
