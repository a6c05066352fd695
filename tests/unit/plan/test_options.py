"""The command line of `slotkeeper plan`."""

from pathlib import Path

import pytest

from documents import DOCS, codes, commands, section, table
from slotkeeper.flags import PlanFlags
from slotkeeper.llamacpp.memory.load import Gpus, Load
from slotkeeper.plan.options import parse


def test_the_load_is_that_of_the_flags() -> None:
    options = parse(
        [
            *("model.gguf", "--gpu", "16Gi,8Gi", "--slots", "8", "--context", "8192"),
            *("--kv-cache-type", "q8_0", "--flash-attention", "disabled", "--gpu-layers", "20"),
            *("--split-mode", "row", "--tensor-split", "2,1", "--cpu-moe-layers", "3"),
            *("--draft", "draft.gguf", "--draft-gpu-layers", "4"),
        ]
    )

    gpus = Gpus((16 * 1024**3, 8 * 1024**3), 20, "row", (2.0, 1.0), 3, 4)
    assert options.load == Load(8, 8192, "q8_0", flash_attention=False, gpus=gpus)
    assert (options.slots, options.context) == (8, 8192)


def test_an_input_for_embeddings_is_computed_at_once() -> None:
    load = parse(["model.gguf", "--context", "2048", "--embeddings"]).load

    assert load == Load(1, 2048, batch=2048, micro_batch=2048, embeddings=True)


def test_the_token_is_for_the_hosts_of_the_urls(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")

    options = parse(
        [
            *("hf://org/model:Q4", "--mmproj", "https://Example.com/x.gguf", "--draft", "d.gguf"),
            *("--token-file", str(token)),
        ],
        {"HF_ENDPOINT": "https://hub.example"},
    )

    assert options.token is not None
    assert options.token.hosts == {"hub.example", "example.com"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "FILE_OR_URL"),
        (["m.gguf", "--gpu", "16G B"], "not a quantity such as 512Mi or 16Gi"),
        (["m.gguf", "--gpu", "0"], "must be 1 or more"),
        (["m.gguf", "--gpu", "16"], "16 is less than 256Mi: write the unit, as in 16Gi"),
        (["m.gguf", "--gpu", "16Gi,255Mi"], "255Mi is less than 256Mi"),
        (["m.gguf", "--gpu", ",".join(["1Gi"] * 129)], "at most 128"),
        (["m.gguf", "--slots", "0"], "--slots"),
        (["m.gguf", "--slots", "99999"], "slots must be from 1 to 4096"),
        (["m.gguf", "--context", "99999999999"], "context must be from 1"),
        (["m.gguf", "--kv-cache-type", "q9"], "invalid choice"),
        (["m.gguf", "--gpu", "1Gi", "--tensor-split", "1,2"], "a share for each GPU"),
        (["m.gguf", "--gpu", "1Gi", "--tensor-split", "0"], "a share above 0"),
        (["m.gguf", "--gpu", "1Gi", "--tensor-split", "a"], "numbers such as 3,1"),
        (["m.gguf", "--gpu", "1Gi", "--tensor-split", "nan"], "numbers from 0"),
        (["m.gguf", "--gpu-layers", "3"], "--gpu-layers requires --gpu"),
        (["m.gguf", "--gpu", "1Gi", "--gpu-layers", "some"], "--gpu-layers"),
        (["m.gguf", "--gpu", "1Gi", "--draft-gpu-layers", "0"], "requires --gpu and --draft"),
        (["m.gguf", "--draft", "d.gguf", "--draft-gpu-layers", "0"], "requires --gpu and --draft"),
        (["pvc://models/m.gguf"], "only files, and URLs"),
        (["ftp://user:password@host/m.gguf"], "ftp://host/m.gguf: only files"),
    ],
)
def test_an_invalid_command_line_is_an_error(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(argv)

    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_the_flags_are_documented() -> None:
    text = (DOCS / "reference/command-line.md").read_text()
    rows = table(section(text, "## Plan"), "flag", "default", "meaning")

    flags = [flag for name, flag in vars(PlanFlags).items() if name.isupper()]
    assert [codes(row[0])[0].partition(" ")[0] for row in rows] == flags


def test_the_documented_commands_are_valid() -> None:
    text = (DOCS / "concepts/memory.md").read_text()
    found = [each for each in commands(text) if each.startswith("slotkeeper plan ")]

    assert len(found) > 1
    for command in found:
        assert parse(command.split()[2:]).model
