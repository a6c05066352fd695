from pathlib import Path

import pytest

from slotkeeper.download.files import File
from slotkeeper.download.options import parse

MODEL = ("--model", "https://a/m.gguf", "--to", "/models/model.gguf")
SPLIT = ("--model", "https://a/m-00001-of-00002.gguf", "--to", "/models/m-00001-of-00002.gguf")
HEX = "ab" * 32


def test_each_url_is_followed_by_the_options_of_its_file() -> None:
    options = parse(
        [
            *("--token-file", "/token", "--token-hosts-file", "/hosts"),
            *(*MODEL, "--sha256", "AB" * 32),
            *("--mmproj", "https://a/p.gguf", "--to", "/models/mmproj.gguf"),
            *("--adapter", "https://a/0.gguf", "--sha256", "cd" * 32, "--to", "/models/0.gguf"),
            *("--adapter", "https://a/1.gguf", "--to", "/models/1.gguf"),
            *("--draft", "https://a/d.gguf", "--same-vocabulary", "--to", "/models/d.gguf"),
        ]
    )

    assert (options.token_file, options.token_hosts_file) == (Path("/token"), Path("/hosts"))
    assert options.files == [
        File("https://a/m.gguf", Path("/models/model.gguf"), "ab" * 32, "model"),
        File("https://a/p.gguf", Path("/models/mmproj.gguf"), None, "model.mmproj"),
        File("https://a/0.gguf", Path("/models/0.gguf"), "cd" * 32, "model.adapters[0]"),
        File("https://a/1.gguf", Path("/models/1.gguf"), None, "model.adapters[1]"),
        File(
            "https://a/d.gguf",
            Path("/models/d.gguf"),
            role="speculative.draft",
            same_vocabulary=True,
        ),
    ]


def test_no_file_is_shared_between_two_command_lines() -> None:
    assert len(parse(MODEL).files) == len(parse(MODEL).files) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one file is required"),
        (["--mmproj", "http://a/", "--to", "p", *MODEL], "before all other files"),
        ([*MODEL, *MODEL], "at most one --model is allowed"),
        (["--model", "http://a/"], "model requires --to"),
        ([*MODEL, "--adapter", "http://a/"], "model.adapters[0] requires --to"),
        ([*MODEL, "--to", "b"], "--to must follow the URL of its file, at most once"),
        (["--sha256", "ab" * 32, *MODEL], "--sha256 must follow the URL of its file, at most once"),
        (
            [*MODEL, "--mmproj", "u", "--to", "p", "--mmproj", "u", "--to", "p"],
            "at most one --mmproj is allowed",
        ),
        (
            [*MODEL, "--draft", "u", "--to", "p", "--draft", "u", "--to", "p"],
            "at most one --draft is allowed",
        ),
        (["--same-vocabulary", *MODEL], "--same-vocabulary must follow the URL of its file"),
        ([*MODEL, "--mmp", "u"], "unrecognized arguments"),
        ([*MODEL, "--token-file", "t"], "--token-file and --token-hosts-file require each other"),
        ([*MODEL, "--max-file-bytes", "0"], "must be 1 or more"),
        ([*MODEL, "--parts-sha256", f"{HEX},{HEX}"], "must have a value for each of 1 files"),
        ([*MODEL, "--parts-sha256", "abc"], "expected 64 hex digits"),
        ([*SPLIT, "--parts-sha256", HEX], "must have a value for each of 2 files"),
        ([*SPLIT, "--sha256", HEX], "a split model requires --parts-sha256, not --sha256"),
        ([*SPLIT[:-1], "/m.gguf"], "--to must have the ending of the URL of a split model"),
    ],
)
def test_an_invalid_command_line_reports_what_is_missing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)

    assert caught.value.code == 2
    assert message in capsys.readouterr().err
