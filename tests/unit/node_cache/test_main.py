import os
from pathlib import Path

import pytest

from slotkeeper.node_cache import main as node_cache
from slotkeeper.node_cache.main import _parser, main


def parse(*arguments: str) -> object:
    return _parser().parse_args(["--path", "/models", "--folder", "/cache", *arguments])


def test_prepare_gives_the_folder_to_the_user_of_the_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_cache, "USER", os.getuid())
    tmp_path.chmod(0o700)

    assert main(["--prepare", "--path", "/models", "--folder", str(tmp_path)]) == 0
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("size", "expected"), [("200Gi", 200 * 2**30), ("1G", 10**9), ("12345", 12345)]
)
def test_a_size_is_a_quantity(size: str, expected: int) -> None:
    assert vars(parse("--size-limit", size))["size_limit"] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size-limit", "many"),
        ("--size-limit", "0"),
        ("--size-limit", "-1"),
        ("--size-limit", "100m"),
        ("--min-free-percent", "91"),
        ("--min-free-percent", "-1"),
        ("--interval", "0"),
        ("--interval", "nan"),
        ("--interval", "4000"),
    ],
)
def test_an_invalid_value_is_rejected(
    arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)

    assert f"argument {arguments[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--prompts-path", "/prompts"], ["--prompts-folder", "/prompts"]]
)
def test_both_paths_of_prompts_are_required(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--path", "/models", "--folder", "/cache", *arguments])

    assert "--prompts-path and --prompts-folder require each other" in capsys.readouterr().err
