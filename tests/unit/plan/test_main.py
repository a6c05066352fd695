"""`slotkeeper plan` of files, and of models on real hosts."""

import re
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from gguf_files import gguf
from model_host import ModelHost, Reply, by_name, content, model_host, status
from planned_model import F32, PlannedModel, write
from planned_models import MODELS
from slotkeeper.plan.main import EXIT_DOES_NOT_FIT, main


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with model_host() as host:
        yield host


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return written("qwen3", tmp_path)


def written(model: str, folder: Path) -> Path:
    path = folder / f"{model}.gguf"
    write(MODELS[model](), path, vocabulary=False)
    return path


def counted(file: Path, sent: list[int]) -> Reply:
    """Serve a large file, and count its bytes until the client closes the connection."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(file.stat().st_size))
        request.end_headers()
        with file.open("rb") as content:
            while piece := content.read(64 * 1024):
                request.wfile.write(piece)
                sent.append(len(piece))

    return reply


def test_a_load_that_fits_is_printed_by_kind(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([str(qwen), "--gpu", "16Gi", "--slots", "8", "--context", "8192"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0] == "qwen3: 28 layers, 1.1 GiB of weights, trained with 40960 tokens"
    assert lines[3].split() == [
        *("GPU", "0", "1101", "MiB", "7168", "MiB", "60", "MiB", "0", "MiB", "500", "MiB"),
        *("8.6", "GiB", "16.0", "GiB"),
    ]
    assert lines[4].split()[:4] == ["main", "memory", "243", "MiB"]
    assert lines[-1] == "8 slots x 8192 tokens need 8.6 GiB of 16.0 GiB"


def test_a_load_that_does_not_fit_has_an_exit_status_of_its_own(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([str(qwen), "--gpu", "8Gi", "--slots", "8", "--context", "8192"])

    assert code == EXIT_DOES_NOT_FIT
    assert capsys.readouterr().out.splitlines()[-1] == (
        "8 slots x 8192 tokens need 8.6 GiB of 8.0 GiB; 7 slots fit"
    )


def test_what_does_not_fit_is_in_brackets(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(qwen), "--gpu", "8Gi,8Gi", "--kv-cache-type", "q8_0"]) == 0

    _, _, caption, *lines = capsys.readouterr().out.splitlines()
    assert caption == (
        "memory that is needed of the fullest GPU, in brackets if the model does not fit:"
    )
    cells = {row[0]: row[1:] for row in map(_cells, lines)}
    assert list(cells) == ["context", "4096", "8192", "16384", "32768"]
    assert cells["context"][3] == "8 slots"
    assert not cells["8192"][4].startswith("(")
    assert cells["8192"][6].startswith("(")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_slots_without_a_context_select_a_column(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(qwen), "--gpu", "16Gi", "--slots", "6"]) == 0

    _, _, caption, *lines = capsys.readouterr().out.splitlines()
    assert caption == "memory that is needed of the GPU, in brackets if the model does not fit:"
    assert list(map(_cells, lines)) == [
        ["context", "6 slots"],
        ["4096", "4.2 GiB"],
        ["8192", "6.9 GiB"],
        ["16384", "12.1 GiB"],
        ["32768", "(22.6 GiB)"],
    ]


def test_a_context_without_slots_selects_a_row(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(qwen), "--context", "5000"]) == 0

    _, _, caption, head, *rows = capsys.readouterr().out.splitlines()
    assert caption == "main memory that is needed, without GPUs:"
    assert _cells(head)[1:] == [
        *("1 slot", "2 slots", "4 slots", "8 slots", "16 slots", "32 slots", "64 slots")
    ]
    assert [_cells(row)[0] for row in rows] == ["5000"]


def test_without_gpus_main_memory_is_planned(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(qwen), "--slots", "2", "--context", "4096"]) == 0

    out = capsys.readouterr().out
    assert "GPU 0" not in out
    assert "main memory  1101 MiB" in out
    need = re.search(r"main memory  .* (\d\.\d GiB)$", out, re.MULTILINE)
    assert need
    assert out.endswith(f"\n\n2 slots x 4096 tokens need {need[1]} of main memory, without GPUs\n")


def test_the_layers_that_fit_are_chosen(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = ("--gpu", "3Gi", "--gpu-layers", "auto", "--slots", "4", "--context", "8192")

    assert main([str(qwen), *load]) == 0

    out = capsys.readouterr().out
    assert "layers on GPUs: 14 of 29\n" in out
    assert out.splitlines()[-1].startswith(
        "4 slots x 8192 tokens with 14 of 29 layers on GPUs need"
    )


def test_a_number_of_layers_is_printed_with_the_table(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(qwen), "--gpu", "3Gi", "--gpu-layers", "14"]) == 0

    assert "layers on GPUs: 14 of 29\n" in capsys.readouterr().out


def test_a_size_beside_that_of_the_gpu_is_printed_in_mib(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(qwen), "--gpu", "3440Mi", "--context", "4096", "--slots", "4"]) == 3

    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[-4:] == ["3449", "MiB", "3440", "MiB"]
    assert "need 3449 MiB of 3440 MiB; " in lines[-1]


def test_bars_show_the_largest_context(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(qwen), "--gpu", "8Gi", "--context", "4096", "--plot"]) == 0

    bars = capsys.readouterr().out.splitlines()[-7:]
    assert bars[0].split() == ["1", "slot", "#" * 50, "40960"]
    assert bars[3].split()[1:] == ["slots", "#" * 9, "7424"]


def test_projector_and_draft_are_planned_too(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers: dict[str, int | list[int]] = {"vision.image_size": 0}
    tensor = ("v.blk.weight", (1024, 1024 * 100), MODELS["qwen3"]().tensors[1][2])
    mmproj = tmp_path / "mmproj.gguf"
    write(PlannedModel("clip", 0, numbers, [tensor]), mmproj, vocabulary=False)
    load = ("--gpu", "16Gi", "--slots", "1", "--context", "4096")

    main([str(qwen), *load])
    alone = capsys.readouterr().out.splitlines()[3].split()
    main([str(qwen), *load, "--mmproj", str(mmproj), "--draft", str(qwen)])
    together = capsys.readouterr().out.splitlines()[3].split()

    assert int(together[2]) == pytest.approx(2 * int(alone[2]) + 400, abs=2)


def test_only_the_beginning_of_a_model_is_received(
    host: ModelHost, qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    host.respond_with(counted(qwen, sent))

    assert main([host.url, "--gpu", "16Gi", "--slots", "8", "--context", "8192"]) == 0

    printed = capsys.readouterr()
    assert "need 8.6 GiB of 16.0 GiB" in printed.out
    assert printed.err == ""
    assert sum(sent) < 64 * 1024**2 < qwen.stat().st_size


def test_a_split_model_is_read_from_all_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = MODELS["qwen3"]()
    first, second = (tmp_path / f"model-{number:05}-of-00002.gguf" for number in (1, 2))
    write(replace(whole, tensors=whole.tensors[:100], files=2), first, vocabulary=False)
    write(replace(whole, tensors=whole.tensors[100:], files=2), second, vocabulary=False)

    assert main([str(first), "--gpu", "16Gi", "--slots", "8", "--context", "8192"]) == 0

    assert "need 8.6 GiB of 16.0 GiB" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_is_no_model(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main([name]) == 1

    assert "Is a directory" in caplog.text


def test_a_part_of_a_split_model_that_is_missing_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = tmp_path / "model-00001-of-00002.gguf"
    write(MODELS["qwen3"](), first, vocabulary=False)

    assert main([str(first)]) == 1

    assert "model-00002-of-00002.gguf: No such file" in caplog.text


@pytest.mark.parametrize(
    ("reply", "exit_status", "message"),
    [
        (status(404), 1, "ModelNotFound: GET http://127.0.0.1"),
        (status(503), 75, "ModelServerError: GET http://127.0.0.1"),
        (content(b"<html>"), 1, "ModelNotGGUF: GET http://127.0.0.1"),
        (content(gguf({"x": 1}, architecture="clip")), 1, "ModelTypeMismatch"),
        (content(gguf({"x": 1}, architecture="t5")), 1, "architecture 't5' is not planned"),
        (content(gguf({"x": 1}, architecture="llama")), 1, "no llama.block_count"),
    ],
)
def test_a_model_that_cannot_be_planned_is_an_error(
    host: ModelHost,
    reply: Reply,
    exit_status: int,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host.respond_with(reply)

    assert main([host.url, "--gpu", "16Gi", "--tries", "1"]) == exit_status

    assert message in caplog.text


def test_an_error_is_printed_as_those_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing.gguf"

    assert main([str(path)]) == 1

    assert capsys.readouterr().err.startswith(f"slotkeeper plan: error: {path}: No such file")


def test_an_error_has_no_credentials_of_the_url(
    host: ModelHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.respond_with(content(gguf({"x": 1}, architecture="t5")))

    assert main([f"{host.url}?key=secret", "--gpu", "16Gi"]) == 1

    assert "'t5' is not planned" in caplog.text
    assert "secret" not in caplog.text


def test_a_file_that_is_no_model_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")

    assert main([str(path)]) == 1

    assert f"{path}: it is not a GGUF file" in caplog.text


def test_a_model_that_is_no_projector_is_named(
    qwen: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main([str(qwen), "--mmproj", str(qwen)]) == 1

    assert f"{qwen}: the file is a model according to its GGUF header, not a proj" in caplog.text


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (gguf({"x": 1}, architecture="llama", kind="adapter"), "a LoRA adapter (model.adapters)"),
        (gguf({"x": 1}, architecture="clip"), "a projector (model.mmproj)"),
    ],
)
def test_a_file_that_is_planned_with_a_model_is_no_model(
    header: bytes, what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(header)

    assert main([str(path)]) == 1

    expected = f"{path}: the file is {what} according to its GGUF header, not a model"
    assert caplog.messages == [expected]


def test_a_context_beyond_the_models_has_a_note(
    qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "note: the context is 40961, but the model was trained for 40960 tokens"

    assert main([str(qwen), "--context", "40961"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == note
    assert main([str(qwen), "--context", "40960"]) == 0
    assert "note" not in capsys.readouterr().out


def test_a_draft_of_another_vocabulary_has_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, same, other = (
        small_model(tmp_path / f"{number}.gguf", words)
        for number, words in enumerate((300, 300, 600))
    )

    assert main([str(model), "--draft", str(same)]) == 0
    assert "note" not in capsys.readouterr().out
    assert main([str(model), "--draft", str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        f"note: {other} is a draft of another model: it has 600 tokens of the tokenizer 'gpt2', "
        "and the model has 300 of 'gpt2': llama-server would serve without it"
    )


def small_model(path: Path, words: int) -> Path:
    """Write a model with its vocabulary; return its path."""
    numbers: dict[str, int | list[int]] = {"block_count": 1, "embedding_length": 64}
    table = ("token_embd.weight", (64, words), F32)
    write(PlannedModel("llama", words, numbers, [table]), path)
    return path


def test_keys_that_the_type_of_the_cache_cannot_store_are_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = MODELS["qwen3"]()
    tensors = [
        (name, (shape[0], 1000) if "attn_k.weight" in name else shape, kind)
        for name, shape, kind in model.tensors
    ]
    path = tmp_path / "odd.gguf"
    write(replace(model, tensors=tensors), path, vocabulary=False)

    assert main([str(path), "--kv-cache-type", "q8_0"]) == 1

    assert "have 1000 numbers, which a KV cache of type q8_0 cannot store" in caplog.text


def test_an_architecture_that_was_not_measured_has_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MODELS["qwen3"]()
    path = tmp_path / "stablelm.gguf"
    write(replace(model, architecture="stablelm"), path, vocabulary=False)

    assert main([str(path)]) == 0

    assert "have not been compared with llama-server" in capsys.readouterr().out


def test_models_of_several_hosts_are_read(host: ModelHost, qwen: Path) -> None:
    host.respond_with(by_name({"model.gguf": counted(qwen, []), "draft.gguf": status(404)}))
    draft = host.url.replace("model.gguf", "draft.gguf")

    assert main([host.url, "--draft", draft, "--tries", "1"]) == 1
    assert any(path.endswith("draft.gguf") for path in host.paths)


def test_nothing_is_left_on_the_disk(
    host: ModelHost, qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    host.respond_with(counted(qwen, []))

    assert main([host.url]) == 0

    assert list(folder.iterdir()) == []
