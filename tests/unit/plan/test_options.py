"""The command line of `slotkeeper plan`."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from documents import DOCS, codes, commands, section, table
from slotkeeper.api.server import LlamaServerSpec
from slotkeeper.flags import PlanFlags
from slotkeeper.llamacpp.memory.load import Gpus, Load
from slotkeeper.plan.options import parse


def test_the_load_is_that_of_the_flags() -> None:
    options = parse(
        [
            *("model.gguf", "--gpu", "16Gi,8Gi", "--slots", "8", "--context", "8192"),
            *("--kv-cache-type", "f32", "--flash-attention", "disabled", "--gpu-layers", "20"),
            *("--split-mode", "row", "--tensor-split", "2,1", "--cpu-moe-layers", "3"),
            *("--draft", "draft.gguf", "--draft-gpu-layers", "4"),
        ]
    )

    gpus = Gpus((16 * 1024**3, 8 * 1024**3), 20, "row", (2.0, 1.0), 3, 4)
    assert options.load == Load(8, 8192, "f32", flash_attention=False, gpus=gpus)
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


_AUTO = ("--gpu", "1Gi", "--gpu-layers", "auto")


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
        (["m.gguf", "--gpu", "15Gi", "--gpu", "15Gi"], "repeated: write --gpu 15Gi,15Gi"),
        (["m.gguf", "--tensor-split", "1", "--tensor-split", "1"], "write --tensor-split 3,1"),
        (["m.gguf", "--slots", "2", "--slots", "4"], "argument --slots: must not be repeated"),
        (["m.gguf", *_AUTO], "--gpu-layers auto requires --slots and --context"),
        (["m.gguf", *_AUTO, "--slots", "4"], "--gpu-layers auto requires --slots and --context"),
        (["m.gguf", "--cpu-moe-layers", "3"], "--cpu-moe-layers requires --gpu"),
        (["m.gguf", "--embeddings", "--draft", "d.gguf"], "--draft must not be set with"),
        (["pvc://models/m.gguf"], "pvc://models/m.gguf: only files, and URLs"),
        (["image:///x.gguf"], "image:///x.gguf: only files, and URLs"),
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


@pytest.mark.parametrize(
    ("argv", "spec"),
    [
        (("--kv-cache-type", "q8_0"), {"kvCacheType": "q8_0"}),
        (("--split-mode", "tensor"), {"gpu": {"splitMode": "tensor"}}),
    ],
)
def test_what_the_api_rejects_is_rejected_with_its_message(
    argv: tuple[str, ...], spec: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValidationError) as rejected:
        LlamaServerSpec.model_validate(
            {"model": {"url": "https://x/m.gguf"}, "flashAttention": "disabled", **spec}
        )
    with pytest.raises(SystemExit):
        parse(["m.gguf", "--gpu", "1Gi", "--flash-attention", "disabled", *argv])

    [error] = rejected.value.errors()
    reason = error["msg"].removeprefix("Value error, ")
    assert reason.startswith("flashAttention must not be disabled")
    assert f"slotkeeper plan: error: {reason}\n" in capsys.readouterr().err


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
