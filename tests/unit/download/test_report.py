import json
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFWriter, LlamaFileType

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.records import FileRecord
from slotkeeper.download.report import failure, success, write_termination_message

RECORD = FileRecord("https://a/m.gguf", "source", "ab" * 32, 1234, 0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = tmp_path / "termination-log"
    log.touch()
    return log


def test_the_metadata_of_a_model_is_reported(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "qwen2")
    writer.add_context_length(32768)
    writer.add_block_count(28)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    write_termination_message(log, success(RECORD, path))

    assert json.loads(log.read_text()) == {
        "sizeBytes": 1234,
        "sha256": "ab" * 32,
        "architecture": "qwen2",
        "contextLength": 32768,
        "layers": 28,
        "quantization": "Q4_K_M",
    }


def test_a_file_without_metadata_is_reported_without_it(tmp_path: Path, log: Path) -> None:
    write_termination_message(log, success(RECORD, tmp_path / "missing.gguf"))

    assert json.loads(log.read_text()) == {"sizeBytes": 1234, "sha256": "ab" * 32}


def test_the_name_in_a_repository_is_reported(tmp_path: Path, log: Path) -> None:
    record = replace(RECORD, name="dir/model-\ud800.gguf")

    write_termination_message(log, success(record, tmp_path / "missing.gguf"))

    assert json.loads(log.read_text())["file"] == "model-?.gguf"


@pytest.mark.parametrize("letter", ["a", "é", '"', "\U0001f999"])
def test_a_message_of_any_length_fits_the_kubelets_limit(log: Path, letter: str) -> None:
    write_termination_message(
        log,
        failure(
            DownloadError(Reason.MODEL_NOT_FOUND, f"GET https://a/{letter * 5000} returned 404")
        ),
    )

    text = log.read_text()
    assert len(text.encode()) <= 4096
    assert json.loads(text)["reason"] == "ModelNotFound"
    assert json.loads(text)["message"].startswith(f"GET https://a/{letter * 99}")
    assert json.loads(text)["message"].endswith("…")
