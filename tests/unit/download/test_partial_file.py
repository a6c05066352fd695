"""Two processes that write the same partial file, since the locks of the volume do not work."""

from pathlib import Path

import pytest

from slotkeeper.download.partial_file import PartialFile

BODY = b"GGUF" + bytes(100)


def writing(folder: Path) -> PartialFile:
    part = PartialFile(folder / "m.gguf.part", "source")
    part.restart(validator='"v1"', total=len(BODY))
    return part


def test_a_file_that_another_process_has_put_in_place_is_not_emptied(tmp_path: Path) -> None:
    with writing(tmp_path) as one, writing(tmp_path) as other:
        for part in (one, other):
            part.append(BODY)
        one.place(tmp_path / "m.gguf")

        other.restart(validator=None, total=None)

    assert (tmp_path / "m.gguf").read_bytes() == BODY


def test_a_file_that_another_process_has_replaced_is_not_put_in_place(tmp_path: Path) -> None:
    with writing(tmp_path) as one:
        one.append(BODY)
        one.path.unlink()
        with writing(tmp_path) as other:
            other.append(BODY[:50])

            with pytest.raises(OSError, match="the volume must support locks"):
                one.place(tmp_path / "m.gguf")

    assert not (tmp_path / "m.gguf").exists()


def test_a_file_that_another_process_has_emptied_is_not_put_in_place(tmp_path: Path) -> None:
    with writing(tmp_path) as one:
        one.append(BODY)
        one.open_head().close()  # writes the buffer
        with writing(tmp_path), pytest.raises(OSError, match="the volume must support locks"):
            one.place(tmp_path / "m.gguf")

    assert not (tmp_path / "m.gguf").exists()
