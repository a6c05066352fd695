from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.folder_descriptor import Disk
from slotkeeper.node_cache.policy import DEAD_NS, Entry, granted, plan
from slotkeeper.node_folder import Limits

NOW = 10 * DEAD_NS
EMPTY_DISK = Disk(total=1000, free=1000)

sizes = st.integers(0, 50)
entries = st.lists(
    st.builds(
        Entry,
        namespace=st.sampled_from(["a", "b"]),
        name=st.text("xyz", min_size=1, max_size=3),
        marks=st.just(()),
        used_ns=st.integers(0, NOW),
        size=sizes,
        complete=st.booleans(),
        requested=st.sampled_from([0, 0, 0, 30]),
    ),
    unique_by=lambda entry: (entry.namespace, entry.name),
)
disks = st.builds(lambda free: Disk(1000, free), st.integers(0, 1000))
limits = st.builds(Limits, max_bytes=st.integers(1, 300), min_free_percent=st.integers(0, 90))


def entry(name: str, size: int = 10, *, hours_ago: float = 0, complete: bool = True) -> Entry:
    return Entry("team", name, (), int(NOW - hours_ago * DEAD_NS), size, complete=complete)


@pytest.mark.parametrize(
    ("present", "used", "max_bytes", "free", "removed", "excess"),
    [
        pytest.param([entry("a"), entry("b")], "", 20, 1000, [], 0, id="within the limit"),
        pytest.param(
            [entry("new", hours_ago=1), entry("old", hours_ago=2)],
            *("", 10, 1000, ["old"], 0),
            id="the least recently used first",
        ),
        pytest.param(
            [entry("new", hours_ago=1), entry("old", hours_ago=2)],
            *("old", 10, 1000, ["new"], 0),
            id="never one in use",
        ),
        pytest.param(
            [entry("a"), entry("b")], *("ab", 10, 1000, [], 10), id="all in use is reported"
        ),
        pytest.param(
            [entry("a", hours_ago=2), entry("b", hours_ago=1)],
            *("", 100, 145, ["a"], 0),
            id="the disk is nearly full",
        ),
        pytest.param(
            [entry("dead", hours_ago=2, complete=False), entry("kept", hours_ago=3)],
            *("", 100, 1000, ["dead"], 0),
            id="a dead download",
        ),
        pytest.param(
            [entry("paused", hours_ago=0.5, complete=False)],
            *("", 100, 1000, [], 0),
            id="a download that may be continued",
        ),
        pytest.param(
            [entry("running", hours_ago=9, complete=False)],
            *("running", 100, 1000, [], 0),
            id="a slow download",
        ),
        pytest.param(
            [entry("future", hours_ago=-2), entry("old", hours_ago=9)],
            *("", 10, 1000, ["future"], 0),
            id="used while the clock was wrong",
        ),
        pytest.param(
            [entry("future", hours_ago=-2, complete=False)],
            *("", 100, 1000, ["future"], 0),
            id="a dead download while the clock was wrong",
        ),
        pytest.param(
            [entry("new", hours_ago=-0.5), entry("old", hours_ago=9)],
            *("", 10, 1000, ["old"], 0),
            id="the clock was set back by some minutes",
        ),
        pytest.param(
            [entry("empty", 0, hours_ago=2), entry("full")],
            *("", 5, 1000, ["full"], 0),
            id="nothing is gained by an empty one",
        ),
    ],
)
def test_the_table(
    present: list[Entry], used: str, max_bytes: int, free: int, removed: list[str], excess: int
) -> None:
    found = plan(
        present,
        lambda entry: entry.name in {used, *used},
        Limits(max_bytes, 15),
        Disk(1000, free),
        NOW,
    )

    assert [each.name for each in found.remove] == removed
    assert found.excess == excess


def test_room_that_a_download_requests_is_made() -> None:
    downloading = replace(entry("new", 0), requested=30)
    old = [entry("older", 20, hours_ago=3), entry("old", 20, hours_ago=2), entry("last", 20)]

    found = plan([downloading, *old], lambda _: False, Limits(500, 0), Disk(1000, 0), NOW)

    assert [each.name for each in found.remove] == ["older", "old"]


@pytest.mark.parametrize("requested", [1001, 10**20 - 1])
def test_nothing_is_removed_for_more_room_than_there_can_be(requested: int) -> None:
    """A model host may announce any size, and a pod may write any request."""
    downloading = replace(entry("new", 0), requested=requested)
    other = replace(entry("other", 0), requested=30)
    old = [entry("older", 20, hours_ago=3), entry("old", 20, hours_ago=2), entry("last", 20)]
    disk = Disk(1000, 0)

    found = plan([downloading, *old], lambda _: False, Limits(500, 0), disk, NOW)
    beside = plan([downloading, other, *old], lambda _: False, Limits(500, 0), disk, NOW)

    assert found.remove == ()
    assert [each.name for each in beside.remove] == ["older", "old"]


@given(entries, st.sets(st.text("xyz", min_size=1, max_size=3)), limits, disks)
def test_a_plan_keeps_what_is_in_use_and_meets_the_limits_or_reports_the_excess(
    present: list[Entry], used: set[str], limits: Limits, disk: Disk
) -> None:
    found = plan(present, lambda entry: entry.name in used, limits, disk, NOW)

    kept = [each for each in present if each not in found.remove]
    freed = sum(each.size for each in found.remove)
    idle = [each for each in present if each.name not in used and not each.requested]
    free = disk.free - limits.reserved_bytes(disk.total)
    requested = granted(present, free + sum(each.size for each in idle))
    excess = max(
        sum(each.size for each in kept) - limits.max_bytes,
        requested - (free + freed),
        0,
    )
    assert not [each for each in found.remove if each.name in used]
    assert len({(each.namespace, each.name) for each in found.remove}) == len(found.remove)
    assert found.excess == excess
    # What is left over the limits is in use.
    in_use = [each for each in kept if each.name in used or each.requested]
    assert not excess or all(each in in_use or not each.size for each in kept)


@given(entries, limits, disks)
def test_no_model_is_removed_before_an_older_one_and_none_needlessly(
    present: list[Entry], limits: Limits, disk: Disk
) -> None:
    found = plan(present, lambda _: False, limits, disk, NOW)

    def is_dead(entry: Entry) -> bool:
        return not entry.complete and NOW - entry.used_ns > DEAD_NS

    for_room = [each for each in found.remove if not is_dead(each)]
    kept = [
        each for each in present if each not in found.remove and each.size and not each.requested
    ]
    assert for_room == sorted(for_room, key=lambda each: each.used_ns)
    assert all(each.used_ns <= other.used_ns for each in for_room for other in kept)
    if for_room:
        *others, last = found.remove
        without_last = plan(
            [each for each in present if each not in others],
            lambda _: False,
            limits,
            Disk(disk.total, disk.free + sum(each.size for each in others)),
            NOW,
        )
        assert last in without_last.remove


def test_an_empty_cache_needs_nothing() -> None:
    found = plan([], lambda _: False, Limits(1, 15), EMPTY_DISK, NOW)

    assert (found.remove, found.excess) == ((), 0)
