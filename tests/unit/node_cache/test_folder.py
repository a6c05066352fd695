"""The agent's operations on the disk, with what a hostile tenant may have left there."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cached_models import HOUR_NS, name_of, write_model
from slotkeeper.node_cache.folder import Folder, give_to
from slotkeeper.node_cache.policy import Entry
from slotkeeper.node_folder import LIMITS_FILE, LOCK_SUFFIX, Limits, mark_used

LIMITS = Limits(1000, 15)

NO_FOLDER = r"Not a directory|Too many levels"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    with Folder(root) as folder:
        yield folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that must not be touched."""
    file = tmp_path / "outside" / f"{name_of('a')}.gguf"
    file.parent.mkdir()
    file.write_bytes(b"precious")
    os.utime(file, ns=(HOUR_NS, HOUR_NS))
    return file


def only_entry(folder: Folder) -> Entry:
    [entry] = folder.scan().entries
    return entry


def test_a_model_is_read_with_its_size_and_last_use(root: Path, folder: Folder) -> None:
    write_model(root / "team", "a", 8192, used_ns=5 * HOUR_NS)
    (root / "team" / LIMITS_FILE).write_text("{}")

    scan = folder.scan()

    [entry] = scan.entries
    assert (entry.namespace, entry.name) == ("team", name_of("a"))
    assert entry.used_ns == 5 * HOUR_NS
    assert 8192 <= entry.size <= 8192 + 2 * 4096
    assert (entry.files, entry.complete, entry.requested) == (3, True, 0)
    assert scan.foreign == 0
    usage = shutil.disk_usage(root)
    assert scan.disk.total == usage.total


def test_the_same_model_of_two_namespaces_are_two_entries(root: Path, folder: Folder) -> None:
    write_model(root / "team", "a")
    write_model(root / "other", "a")

    assert [entry.namespace for entry in folder.scan().entries] == ["other", "team"]


@pytest.mark.parametrize("parts", [1, 3])
def test_all_files_of_a_model_are_removed_together(root: Path, folder: Folder, parts: int) -> None:
    write_model(root / "team", "a", parts=parts)
    kept = write_model(root / "team", "b")
    entry = next(each for each in folder.scan().entries if each.name == name_of("a"))

    assert folder.remove(entry)

    assert {*(root / "team").iterdir()} == {*kept}


@pytest.mark.parametrize("suffix", [".gguf.part", ".gguf.part.json", ".gguf.hub.json", ".gguf.new"])
def test_what_belongs_to_a_model_is_removed_with_it(
    root: Path, folder: Folder, suffix: str
) -> None:
    write_model(root / "team", "a")
    (root / "team" / f"{name_of('a')}{suffix}").touch()

    assert folder.remove(only_entry(folder))
    assert list((root / "team").iterdir()) == []


def test_a_partial_file_makes_a_model_incomplete(root: Path, folder: Folder) -> None:
    files = write_model(root / "team", "a", parts=2)
    assert only_entry(folder).complete

    files[2].rename(files[2].with_name(f"{files[2].name}.part"))

    assert not only_entry(folder).complete


def test_a_model_without_its_record_is_incomplete(root: Path, folder: Folder) -> None:
    _, record, _ = write_model(root / "team", "a")
    record.unlink()

    assert not only_entry(folder).complete


def test_a_model_that_was_used_since_the_scan_is_kept(root: Path, folder: Folder) -> None:
    *_, lock = files = write_model(root / "team", "a")
    entry = only_entry(folder)
    with lock.open("ab") as file:
        # Even if the clock was set back.
        mark_used(file.fileno(), 0)

    assert not folder.remove(entry)
    assert {*(root / "team").iterdir()} == {*files}


def test_a_model_whose_lock_is_held_is_kept(root: Path, folder: Folder) -> None:
    *_, lock = write_model(root / "team", "a")
    entry = only_entry(folder)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not folder.remove(entry)

    assert folder.remove(entry)


def test_a_model_with_a_second_lock_file_since_the_scan_is_kept(root: Path, folder: Folder) -> None:
    write_model(root / "team", "a")
    entry = only_entry(folder)
    (root / "team" / f"{name_of('a')}-00001-of-00002.gguf{LOCK_SUFFIX}").touch()

    assert not folder.remove(entry)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_model_without_a_lock_file_is_removed_under_the_lock_of_the_downloader(
    root: Path, folder: Folder, parts: int
) -> None:
    *_, lock = write_model(root / "team", "a", parts=parts)
    lock.unlink()
    entry = only_entry(folder)
    with lock.open("ab"):
        # A downloader has come first.
        assert not folder.remove(entry)
    lock.unlink()

    assert folder.remove(entry)
    assert list((root / "team").iterdir()) == []


def test_marks_never_repeat_and_never_decrease(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    seen = []
    with lock.open("ab") as file:
        os.utime(lock, ns=(HOUR_NS, HOUR_NS))
        for now in (HOUR_NS, HOUR_NS, 0, 2 * HOUR_NS, HOUR_NS):
            mark_used(file.fileno(), now)
            seen.append(os.fstat(file.fileno()).st_mtime_ns)

    assert seen == sorted(set(seen))
    assert seen[3] == 2 * HOUR_NS


def test_the_agent_marks_a_model_in_use(root: Path, folder: Folder) -> None:
    write_model(root / "team", "a")

    folder.mark_used(only_entry(folder), 7 * HOUR_NS)

    assert only_entry(folder).used_ns == 7 * HOUR_NS


@pytest.mark.parametrize("content", ["3000", "x", "-1", "", "9" * 30])
@pytest.mark.parametrize("held", [True, False])
def test_only_a_download_that_waits_requests_room(
    root: Path, folder: Folder, content: str, held: bool
) -> None:
    *_, lock = write_model(root / "team", "a")
    request = root / "team" / f"{name_of('a')}.gguf.part.room"
    request.write_text(content)
    with lock.open("ab") as running, request.open("ab") as waiting:
        # A later download of the model does not renew a request that a kill has left.
        fcntl.flock(running, fcntl.LOCK_EX)
        if held:
            fcntl.flock(waiting, fcntl.LOCK_EX)
        requested = only_entry(folder).requested

    assert requested == (3000 if held and content == "3000" else 0)


# The folders of namespaces.


def test_a_folder_is_created_for_its_user_only_with_the_limits(root: Path, folder: Folder) -> None:
    folder.prepare("team", LIMITS)

    team = root / "team"
    assert folder.namespaces() == ["team"]
    assert [*root.iterdir()] == [team]
    assert team.stat().st_mode & 0o777 == 0o700
    assert Limits.from_json((team / LIMITS_FILE).read_bytes()) == LIMITS


def test_other_limits_replace_those_of_an_existing_folder(root: Path, folder: Folder) -> None:
    folder.prepare("team", LIMITS)
    files = write_model(root / "team", "a")

    folder.prepare("team", Limits(5, 10))

    assert Limits.from_json((root / "team" / LIMITS_FILE).read_bytes()) == Limits(5, 10)
    assert {*files} < {*(root / "team").iterdir()}


def test_a_folder_whose_creation_was_interrupted_is_completed(root: Path, folder: Folder) -> None:
    (root / ".new-team").mkdir()
    (root / ".new-team" / f".new-{LIMITS_FILE}").write_text("{")

    folder.prepare("team", LIMITS)

    assert [file.name for file in (root / "team").iterdir()] == [LIMITS_FILE]
    assert folder.scan().foreign == 0


def test_the_folder_is_given_to_the_user_of_the_pods(root: Path) -> None:
    root.chmod(0o700)
    user = os.getuid()

    give_to(root, user)
    give_to(root, user)

    assert (root.stat().st_uid, root.stat().st_mode & 0o777) == (user, 0o755)


# Links, and other things than files.


def test_a_folder_that_is_a_link_is_not_opened(root: Path, outside: Path, folder: Folder) -> None:
    (root / "team").symlink_to(outside.parent)

    scan = folder.scan()

    assert (scan.entries, scan.foreign, folder.namespaces()) == ((), 1, [])
    with pytest.raises(OSError, match=NO_FOLDER):
        folder.prepare("team", LIMITS)
    assert [*outside.parent.iterdir()] == [outside]


def test_a_folder_that_is_replaced_by_a_link_after_the_scan_is_not_opened(
    root: Path, outside: Path, folder: Folder
) -> None:
    write_model(root / "team", "a")
    entry = only_entry(folder)
    (root / "team").rename(root / "moved")
    (root / "team").symlink_to(outside.parent)

    for action in (folder.remove, lambda each: folder.mark_used(each, 9 * HOUR_NS)):
        with pytest.raises(OSError, match=NO_FOLDER):
            action(entry)

    assert outside.read_bytes() == b"precious"


def test_of_a_link_only_the_link_is_removed(root: Path, outside: Path, folder: Folder) -> None:
    model, *_ = write_model(root / "team", "a")
    model.unlink()
    model.symlink_to(outside)

    entry = only_entry(folder)

    assert entry.size < 8 * 4096
    assert folder.remove(entry)
    assert outside.read_bytes() == b"precious"
    assert list((root / "team").iterdir()) == []


def test_a_folder_among_the_files_of_a_model_does_not_keep_them(root: Path, folder: Folder) -> None:
    write_model(root / "team", "a")
    hostile = [root / "team" / f"{name_of('a')}{suffix}" for suffix in (".a", ".lock")]
    for each in hostile:
        (each / "deep").mkdir(parents=True)

    assert folder.remove(only_entry(folder))

    assert set((root / "team").iterdir()) == set(hostile)


def test_a_lock_that_is_a_link_is_neither_locked_nor_marked(
    root: Path, outside: Path, folder: Folder
) -> None:
    *_, lock = files = write_model(root / "team", "a")
    lock.unlink()
    lock.symlink_to(outside)
    entry = only_entry(folder)

    folder.mark_used(entry, 9 * HOUR_NS)

    assert not folder.remove(entry)
    assert {*(root / "team").iterdir()} == {*files}
    assert outside.stat().st_mtime_ns == HOUR_NS


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder"])
def test_a_lock_of_another_kind_does_not_block(
    root: Path, folder: Folder, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, lock = write_model(root / "team", "a")
    lock.unlink()
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        # The path of a socket has a hundred bytes.
        monkeypatch.chdir(lock.parent)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(lock.name)
    entry = only_entry(folder)

    folder.mark_used(entry, 9 * HOUR_NS)

    assert not folder.remove(entry)


def test_a_request_of_another_kind_does_not_block(root: Path, folder: Folder) -> None:
    write_model(root / "team", "a")
    os.mkfifo(root / "team" / f"{name_of('a')}.gguf.part.room")

    assert only_entry(folder).requested == 0


def test_hard_links_count_once_and_only_their_names_are_removed(
    root: Path, outside: Path, folder: Folder
) -> None:
    big, *_ = write_model(root / "team", "a", 1 << 20)
    os.link(big, root / "team" / f"{name_of('b')}.gguf")
    os.link(outside, root / "team" / f"{name_of('c')}.gguf")

    entries = folder.scan().entries

    assert sum(entry.size for entry in entries) < 2 << 20
    for entry in entries:
        assert folder.remove(entry)
    assert outside.read_bytes() == b"precious"
    assert list((root / "team").iterdir()) == []


def test_a_folder_with_the_name_of_a_model_is_left(root: Path, folder: Folder) -> None:
    hostile = root / "team" / f"{name_of('a')}.gguf"
    (hostile / "deep").mkdir(parents=True)

    scan = folder.scan()

    assert (scan.entries, scan.foreign) == ((), 1)
    assert hostile.is_dir()


@pytest.mark.parametrize(
    "name", ["notes.txt", "sha256-short.gguf", "..gguf", "\n", "SHA256-" + "0" * 64, "é\udcff"]
)
def test_other_files_are_counted_and_left(root: Path, folder: Folder, name: str) -> None:
    (root / "team").mkdir()
    foreign = root / "team" / name
    foreign.write_text("x")
    (root / "not_a_namespace").mkdir()
    (root / "file").write_text("x")

    scan = folder.scan()

    assert (scan.entries, scan.foreign) == ((), 3)
    assert foreign.exists()


@pytest.mark.parametrize("namespace", ["..", ".", "", "a/b", "/etc", "A", "a_b", "-a"])
def test_a_name_that_is_none_of_a_namespace_is_not_created(folder: Folder, namespace: str) -> None:
    with pytest.raises(OSError, match=r".*"):
        folder.prepare(namespace, LIMITS)

    assert folder.namespaces() == []


def test_the_root_must_not_be_a_link(tmp_path: Path, root: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)

    with pytest.raises(OSError, match=NO_FOLDER):
        Folder(link)
    with pytest.raises(OSError, match=NO_FOLDER):
        give_to(link, os.getuid())
