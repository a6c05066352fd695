import logging
from pathlib import Path

import pytest

from slotkeeper.edge.api_keys import ApiKeyFolder, ApiKeys


def keys_in(folder: Path) -> ApiKeys:
    keys = ApiKeys(b"salt")
    ApiKeyFolder(folder, keys).load()
    return keys


def mount(folder: Path, version: str, **files: str) -> None:
    """Mount as Kubernetes does: links to links into a folder that is replaced as a whole."""
    content = folder / f"..{version}"
    content.mkdir(parents=True)
    for name, text in files.items():
        (content / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..data_tmp").symlink_to(content.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for link in folder.iterdir():
        if not link.name.startswith("..") and link.name not in files:
            link.unlink()


def test_a_key_has_the_name_of_its_file(tmp_path: Path) -> None:
    mount(tmp_path, "1", ann="one\n", bob="  two  ")
    keys = keys_in(tmp_path)

    assert len(keys) == 2
    assert [keys.owner_of(secret) for secret in (b"one", b"two")] == ["ann", "bob"]
    assert [keys.owner_of(secret) for secret in (b"", b"on", b"one\n", b"ann", b"ONE")] == [
        None
    ] * 5


def test_files_that_are_no_keys_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount(tmp_path, "1", ann="one", empty="\n", several="three\nfour\n", long="x" * 5000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("..data/missing")
    keys = keys_in(tmp_path)

    assert len(keys) == 1
    assert [keys.owner_of(secret) for secret in (b"", b"three", b"three\nfour", b"x" * 5000)] == [
        None
    ] * 4
    assert sorted(each.getMessage().split()[2] for each in caplog.records) == ["long", "several"]
    assert "three" not in caplog.text


def test_a_key_with_several_names_counts_as_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount(tmp_path, "1", bob="same", ann="same", zoe="other")
    keys = keys_in(tmp_path)

    assert (keys.owner_of(b"same"), len(keys)) == ("ann", 2)
    assert "ann and bob are identical" in caplog.text
    assert "same" not in caplog.text


async def test_a_change_is_detected_and_nothing_is_read_without_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mount(tmp_path, "1", ann="one", bob="two")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()

    await folder.check()
    assert len(caplog.records) == 1
    mount(tmp_path, "2", ann="new", zoe="three")
    await folder.check()
    assert [keys.owner_of(secret) for secret in (b"one", b"two", b"new", b"three")] == [
        *(None, None),
        *("ann", "zoe"),
    ]
    (tmp_path / "plain").write_text("four")
    await folder.check()
    assert keys.owner_of(b"four") == "plain"


async def test_an_unreadable_folder_keeps_its_keys_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted, moved = tmp_path / "keys", tmp_path / "moved"
    mount(mounted, "1", ann="one")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(mounted, keys)
    folder.load()

    mounted.rename(moved)
    for _ in "123":
        await folder.check()
    assert keys.owner_of(b"one") == "ann"
    assert [each.getMessage() for each in caplog.records] == [
        f"cannot read API keys from {mounted}: No such file or directory; keeping the 1 loaded keys"
    ]

    moved.rename(mounted)
    (mounted / "bob").write_text("two")
    await folder.check()
    assert keys.owner_of(b"two") == "bob"
    mounted.rename(moved)
    await folder.check()
    assert len(caplog.records) == 2


async def test_an_unreadable_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ann").write_text("one")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()

    (tmp_path / "ann").unlink()
    (tmp_path / "bob").symlink_to("bob")
    await folder.check()
    assert keys.owner_of(b"one") == "ann"
    assert "cannot read" in caplog.text


async def test_without_any_key_no_request_is_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount(tmp_path, "1", ann="one")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()

    mount(tmp_path, "2")
    await folder.check()
    assert (len(keys), keys.owner_of(b"one"), keys.owner_of(b"")) == (0, None, None)
    assert "rejecting all requests" in caplog.text


def test_at_the_start_the_folder_must_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (("missing", "No such file"), ("file", "Not a directory")):
        with pytest.raises(OSError, match=f"cannot read API keys from .*{path}: {reason}"):
            keys_in(tmp_path / path)


def test_at_the_start_every_file_must_be_readable(tmp_path: Path) -> None:
    (tmp_path / "ann").symlink_to("ann")  # a link to itself is unreadable even for root
    with pytest.raises(OSError, match=r"cannot read .*: Too many levels"):
        keys_in(tmp_path)


def test_a_limit_for_a_name_without_a_key_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bob").write_text("secret")

    ApiKeyFolder(tmp_path, ApiKeys(b"salt"), {"bob", "bbo"}).load()

    assert "no API key has the name bbo, for which a rule is set" in caplog.text


def test_names_that_are_set_later_are_compared_with_the_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bob").write_text("secret")
    folder = ApiKeyFolder(tmp_path, ApiKeys(b"salt"))
    folder.load()
    assert "no API key has the name" not in caplog.text

    folder.set_named({"bob", "bbo"})
    folder.set_named({"bob", "bbo"})

    assert caplog.text.count("no API key has the name bbo, for which a rule is set") == 1
