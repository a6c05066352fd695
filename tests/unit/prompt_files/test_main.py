from pathlib import Path

import pytest

from prompt_states import IDENTITY
from slotkeeper.prompt_files.main import _parser, main


def parse(*arguments: str) -> object:
    return _parser().parse_args(["--folder", "/prompts", "--identity", IDENTITY, *arguments])


def test_prepare_creates_the_folder_and_exits(tmp_path: Path) -> None:
    command = ["--folder", str(tmp_path), "--identity", IDENTITY, "--prepare"]

    assert main(command) == 0
    assert main(command) == 0
    assert {each.name for each in tmp_path.iterdir()} == {IDENTITY, ".lock"}


def test_prepare_fails_without_a_folder(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")

    assert main(["--folder", missing, "--identity", IDENTITY, "--prepare"]) == 1


def test_prepare_fails_where_llama_server_cannot_save(tmp_path: Path) -> None:
    (tmp_path / IDENTITY).write_text("")

    assert main(["--folder", str(tmp_path), "--identity", IDENTITY, "--prepare"]) == 1


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)

    for name in ("file", "link"):
        folder = str(tmp_path / name)
        assert main(["--folder", folder, "--identity", IDENTITY, "--prepare"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--identity", "0123"),
        ("--identity", "0123456789ABCDEF"),
        ("--size-limit", "many"),
        ("--size-limit", "0"),
        ("--size-limit", "100m"),
        ("--min-free-percent", "91"),
        ("--min-free-percent", "-1"),
        ("--listen", "9094"),
    ],
)
def test_an_invalid_value_is_rejected(
    arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)

    assert f"argument {arguments[0]}: " in capsys.readouterr().err
