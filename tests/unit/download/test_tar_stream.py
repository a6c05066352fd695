"""Tar archives that arrive in chunks, compared with tarfile."""

import io
import tarfile
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slotkeeper.download.errors import DownloadError, shown
from slotkeeper.download.tar_stream import Entry, TarStream, path_in_archive

FORMATS: list[Literal[1, 2]] = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]
names = st.text("abc/.-é\n", min_size=1, max_size=300).filter(lambda name: name.strip("/"))
files = st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=5)
chunks = st.integers(min_value=1, max_value=1200)


def archive(contents: list[tuple[str, bytes]], kind: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, body in contents:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def read(data: bytes, chunk: int) -> list[tuple[Entry, bytes]]:
    """Return all files of an archive that arrives in chunks."""
    found: list[tuple[Entry, bytearray]] = []

    def select(entry: Entry) -> bool:
        found.append((entry, bytearray()))
        return entry.is_file

    stream = TarStream(select)
    for start in range(0, len(data), chunk):
        for content in stream.feed(data[start : start + chunk]):
            found[-1][1].extend(content)
    return [(entry, bytes(content)) for entry, content in found]


@pytest.mark.parametrize("kind", FORMATS)
@given(contents=files, chunk=chunks)
@example(contents=[("a" * 300, b"x" * 600)], chunk=1)
def test_the_content_is_that_of_tarfile(
    contents: list[tuple[str, bytes]], chunk: int, kind: Literal[1, 2]
) -> None:
    data = archive(contents, kind)

    found = read(data, chunk)

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(path_in_archive(each.name), each.size) for each in tar]
    assert [(entry.name, entry.size) for entry, _ in found] == expected
    assert [content for _, content in found] == [body for _, body in contents]


@given(
    contents=files,
    damage=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=20),
    kind=st.sampled_from(FORMATS),
)
def test_a_damaged_archive_ends_with_an_error_or_less(
    contents: list[tuple[str, bytes]], damage: list[tuple[int, int]], kind: Literal[1, 2]
) -> None:
    data = bytearray(archive(contents, kind))
    for position, value in damage:
        data[position % len(data)] = value
    with suppress(DownloadError):
        found = read(bytes(data), 1000)
        assert sum(len(content) for _, content in found) <= len(data)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("size", "-1"),
        ("size", "1" * 30),
        ("size", "9e9"),
        ("GNU.sparse.major", "1"),
    ],
)
def test_headers_that_would_confuse_are_rejected(header: str, value: str) -> None:
    info = tarfile.TarInfo("a")
    data = info._create_pax_generic_header(  # type: ignore[attr-defined]
        {header: value}, tarfile.XHDTYPE, "utf-8"
    )

    with pytest.raises(DownloadError):
        read(data + info.tobuf(), 512)


def test_a_size_of_more_than_8_gib_is_read() -> None:
    for kind in FORMATS:
        info = tarfile.TarInfo("a")
        info.size = 1 << 40
        [(entry, _)] = read(info.tobuf(kind), 512)
        assert entry.size == 1 << 40


def test_an_extension_is_kept_in_memory_only_up_to_a_limit() -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, (1 << 20) + 1

    with pytest.raises(DownloadError, match="a header of 1048577 bytes"):
        read(info.tobuf(tarfile.GNU_FORMAT), 512)


def test_bytes_after_the_end_are_ignored() -> None:
    data = archive([("a", b"a")], tarfile.PAX_FORMAT)

    assert [entry.name for entry, _ in read(data + b"garbage" * 1000, 700)] == ["a"]


@pytest.mark.parametrize(
    ("name", "path"),
    [("./a/b", "a/b"), ("/a", "a"), ("a/", "a"), (".//./a", "a"), ("../a", "../a"), (".a", ".a")],
)
def test_paths_are_relative_to_the_root(name: str, path: str) -> None:
    assert path_in_archive(name) == path


def test_names_in_messages_are_printable_and_short() -> None:
    assert shown("a\n\x1b[1m\udcffé" + "x" * 500) == "a\\n\\x1b[1m\\udcff\\xe9" + "x" * 192
