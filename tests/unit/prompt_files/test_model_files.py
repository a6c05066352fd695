from pathlib import Path

import pytest

from slotkeeper.prompt_files.model_files import SAMPLE_BYTES, SAMPLES, ModelFiles


def fingerprint(*paths: Path) -> str:
    return ModelFiles(paths).fingerprint()


def test_without_files_it_is_empty() -> None:
    assert fingerprint() == ""


@pytest.mark.parametrize("size", [0, 1, SAMPLE_BYTES, SAMPLE_BYTES * SAMPLES * 2 + 1])
def test_equal_contents_have_an_equal_fingerprint(tmp_path: Path, size: int) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(bytes(size))

    assert fingerprint(one) == fingerprint(other)
    other.write_bytes(bytes(size + 1))
    assert fingerprint(one) != fingerprint(other)


def test_another_content_of_the_same_size_has_another_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    part = SAMPLE_BYTES * SAMPLES // 2
    found = set()
    for changed in range(5):
        path.write_bytes(b"".join((b"x" if each == changed else b"-") * part for each in range(5)))
        found.add(fingerprint(path))

    assert len(found) == 5


def test_the_files_count_in_their_order(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")

    assert len({fingerprint(one, other), fingerprint(other, one), fingerprint(one)}) == 3


def test_the_files_may_come_later(tmp_path: Path) -> None:
    path = tmp_path / "model"
    files = ModelFiles([path])
    with pytest.raises(FileNotFoundError):
        files.fingerprint()

    path.write_bytes(b"1")
    first = files.fingerprint()
    path.write_bytes(b"2")
    # llama-server has loaded what was there.
    assert files.fingerprint() == first
