from hypothesis import given
from hypothesis import strategies as st

from prompt_states import HOUR_NS, SECOND_NS
from slotkeeper.folder_descriptor import Disk
from slotkeeper.node_folder import Limits
from slotkeeper.prompt_files.policy import (
    EXPIRED_NS,
    IDLE_NS,
    MAX_FILES,
    PART_NS,
    Contents,
    Reason,
    StoredFile,
    is_abandoned,
    is_expired,
    plan,
)

NOW = 100 * HOUR_NS

identities = st.sampled_from(["a", "b", "c"])
files = st.lists(
    st.builds(
        StoredFile,
        identities,
        st.text("xyz", min_size=1, max_size=6),
        st.integers(1, 50),
        st.integers(0, NOW),
    ),
    max_size=12,
    unique_by=lambda each: (each.identity, each.name),
)


@st.composite
def contents(draw: st.DrawFn) -> Contents:
    found = tuple(draw(files))
    parts = draw(st.integers(0, 60))
    total = draw(st.integers(0, 1000))
    last = {each: draw(st.integers(0, NOW)) for each in ("a", "b", "c")}
    used = sum(each.bytes for each in found) + parts
    return Contents(found, used, Disk(total, draw(st.integers(0, total))), last)


limits = st.builds(Limits, st.integers(1, 400), st.integers(0, 90))


def folder(*found: StoredFile, free: int = 1000, **last_use: int) -> Contents:
    used = sum(each.bytes for each in found)
    return Contents(found, used, Disk(1000, free), last_use)


@given(contents(), limits, st.integers(0, 200))
def test_after_the_removals_the_limits_are_kept_or_nothing_is_left(
    folder: Contents, limits: Limits, added: int
) -> None:
    found = plan(folder, limits, added, NOW)
    removed = sum(each.bytes for each in found.remove)
    used = folder.used_bytes - removed + added
    free = folder.disk.free + removed - added
    keeps = used <= limits.max_bytes and free >= limits.reserved_bytes(folder.disk.total)

    assert found.fits == keeps
    assert found.fits or set(found.remove) == set(folder.files)
    assert (found.reason is None) == (found.fits and not found.remove)


@given(contents(), limits, st.integers(0, 200))
def test_no_file_is_removed_that_need_not_be(folder: Contents, limits: Limits, added: int) -> None:
    found = plan(folder, limits, added, NOW)
    kept = {*folder.files} - {*found.remove}

    def order(file: StoredFile) -> tuple[bool, int]:
        return NOW - folder.identities[file.identity] < IDLE_NS, file.used_ns

    assert len({*found.remove}) == len(found.remove)
    assert all(order(first) <= order(then) for first in found.remove for then in kept)
    if found.fits and found.remove:
        removed = sum(each.bytes for each in found.remove[:-1])
        reserved = limits.reserved_bytes(folder.disk.total)
        assert (
            folder.used_bytes - removed + added > limits.max_bytes
            or folder.disk.free + removed - added < reserved
        )


@given(contents(), limits)
def test_a_folder_within_its_limits_stays_as_it_is(folder: Contents, limits: Limits) -> None:
    found = plan(folder, limits, 0, NOW)
    removed = sum(each.bytes for each in found.remove)
    kept = tuple(each for each in folder.files if each not in found.remove)
    disk = Disk(folder.disk.total, folder.disk.free + removed)
    after = Contents(kept, folder.used_bytes - removed, disk, folder.identities)

    assert not plan(after, limits, 0, NOW).remove


def test_files_of_an_identity_without_replicas_go_first() -> None:
    own = StoredFile("own", "x", 10, NOW - 5 * HOUR_NS)
    earlier = StoredFile("earlier", "y", 10, NOW - SECOND_NS)
    last_use = {"own": NOW, "earlier": NOW - IDLE_NS}

    assert plan(folder(own, earlier, **last_use), Limits(15, 0), 0, NOW).remove == (earlier,)
    last_use["earlier"] += 1
    assert plan(folder(own, earlier, **last_use), Limits(15, 0), 0, NOW).remove == (own,)


def test_the_reason_is_the_limit_that_is_exceeded() -> None:
    file = StoredFile("own", "x", 10, NOW)

    assert plan(folder(file), Limits(20, 0), 11, NOW).reason is Reason.SIZE_LIMIT
    assert plan(folder(file, free=100), Limits(20, 10), 1, NOW).reason is Reason.DISK_FULL
    assert plan(folder(file, free=101), Limits(20, 10), 1, NOW).reason is None


def test_the_number_of_files_is_limited() -> None:
    found = [StoredFile("own", f"{number}", 0, number) for number in range(MAX_FILES)]

    assert plan(folder(*found), Limits(1, 0), 0, NOW).reason is None
    added = plan(folder(*found), Limits(1, 0), 1, NOW)
    assert (added.reason, added.remove, added.fits) == (Reason.FILE_COUNT, (found[0],), True)


def test_an_identity_is_removed_after_a_day_without_use() -> None:
    assert not is_expired(NOW - EXPIRED_NS, NOW)
    assert is_expired(NOW - EXPIRED_NS - 1, NOW)
    assert not is_expired(NOW + EXPIRED_NS, NOW)


def test_what_is_not_completed_is_removed_after_ten_minutes_of_any_clock() -> None:
    assert not is_abandoned(NOW - PART_NS, NOW)
    assert is_abandoned(NOW - PART_NS - 1, NOW)
    assert is_abandoned(NOW + PART_NS + 1, NOW)
