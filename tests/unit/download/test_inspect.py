"""Only the headers are received, and reported as the sizes on which memory depends."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from model_host import ModelHost, Reply, by_name, content, status
from planned_model import F32, PlannedModel, write
from slotkeeper.download.main import main
from slotkeeper.llamacpp.memory.projector import Projector
from slotkeeper.llamacpp.memory.record import decode

MODEL = PlannedModel(
    "llama",
    100,
    {"block_count": 1, "embedding_length": 64, "context_length": 512},
    [("token_embd.weight", (64, 100), F32)],
)
OTHER = PlannedModel("clip", 0, {}, [("v.weight", (64, 10), F32)])


@dataclass
class Inspection:
    """`slotkeeper download --inspect` of files of a host."""

    host: ModelHost
    folder: Path
    replies: dict[str, Reply] = field(default_factory=dict)

    def run(self, *arguments: str) -> tuple[int, Any]:
        log = self.folder / "termination-log"
        log.touch()
        argv = ["--inspect", *arguments, f"--termination-log={log}", "--tries=1"]
        code = main(argv)
        assert len(log.read_bytes()) <= 4096
        return code, json.loads(log.read_text())

    def file(self, flag: str, model: PlannedModel) -> list[str]:
        """A file of the host."""
        name = f"{flag.strip('-')}.gguf"
        path = self.folder / f"source-{name}"
        write(model, path, vocabulary=False)
        self.replies[name] = content(path.read_bytes())
        self.host.respond_with(by_name(self.replies))
        url = f"{self.host.url.rpartition('/')[0]}/{name}"
        return [flag, url, "--to", str(self.folder / name)]


@pytest.fixture
def inspection(host: ModelHost, tmp_path: Path) -> Inspection:
    return Inspection(host, tmp_path)


def test_the_sizes_are_in_the_termination_message(inspection: Inspection) -> None:
    code, message = inspection.run(*inspection.file("--model", MODEL))

    parts = decode(message["record"])
    assert code == 0
    assert (parts.model.architecture, parts.model.trained_context) == ("llama", 512)
    assert parts.model.table == 64 * 100 * 4
    assert not (inspection.folder / "model.gguf").exists()


def test_a_checksum_is_not_compared(inspection: Inspection) -> None:
    code, message = inspection.run(
        *inspection.file("--model", MODEL)[:2],
        "--sha256=" + "0" * 64,
        f"--to={inspection.folder / 'model.gguf'}",
    )

    assert code == 0
    assert set(message) == {"record"}


def test_projector_and_draft_are_in_the_record(inspection: Inspection) -> None:
    code, message = inspection.run(
        *inspection.file("--model", MODEL),
        *inspection.file("--mmproj", OTHER),
        *inspection.file("--draft", MODEL),
        "--same-vocabulary",
    )

    parts = decode(message["record"])
    assert code == 0
    assert parts.draft == parts.model
    assert parts.projector == Projector(64 * 10 * 4, 0)


def test_the_file_that_cannot_be_planned_is_named(inspection: Inspection) -> None:
    unknown = PlannedModel("eagle3", 0, {"block_count": 1}, MODEL.tensors)

    code, message = inspection.run(
        *inspection.file("--model", MODEL), *inspection.file("--draft", unknown)
    )

    assert code == 0
    assert message == {
        "unplannable": "speculative.draft: the memory of the architecture 'eagle3' is not planned"
    }


def test_what_cannot_be_planned_is_no_failure(inspection: Inspection) -> None:
    unknown = PlannedModel("t5", 0, {"block_count": 1}, MODEL.tensors)

    code, message = inspection.run(*inspection.file("--model", unknown))

    assert code == 0
    assert message == {"unplannable": "the memory of the architecture 't5' is not planned"}


def test_a_failure_is_reported_as_that_of_a_download(inspection: Inspection) -> None:
    inspection.host.respond_with(status(404))

    code, message = inspection.run(
        "--model", inspection.host.url, f"--to={inspection.folder / 'model.gguf'}"
    )

    assert code == 1
    assert message["reason"] == "ModelNotFound"


def test_a_model_in_the_image_is_not_planned(inspection: Inspection) -> None:
    code, message = inspection.run(*inspection.file("--mmproj", OTHER))

    assert code == 0
    assert message == {"unplannable": "it is in llama-server's image"}
