"""Headers are read from all sources of models that have a part of a file at an address."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from fake_hub import REPOSITORY, fake_hub
from oci_registry import CERTIFICATE, USER, needs_registry, running_registry
from planned_model import F32, PlannedModel, write
from slotkeeper.plan.main import main

SMALL = PlannedModel(
    "llama",
    100,
    {"block_count": 1, "embedding_length": 64, "context_length": 512},
    [("token_embd.weight", (64, 100), F32)],
)
LINE = "llama: 1 layer, 1 MiB of weights, trained with 512 tokens\n"


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    path = tmp_path / "small.gguf"
    write(SMALL, path, vocabulary=False)
    return path.read_bytes()


def test_a_quantization_of_a_repository(
    model: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_hub() as hub:
        hub.push({"README.md": b"# Model", "Model-Q4_K_M.gguf": model})
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)

        assert main([f"hf://{REPOSITORY}:Q4_K_M"]) == 0

    assert capsys.readouterr().out.startswith(LINE)


@needs_registry
def test_an_artifact_of_a_registry(
    model: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_registry(tmp_path / "registry") as registry:
        url = registry.push("small", ("application/vnd.docker.ai.gguf.v3", model, None))

        assert main([url, *_access(tmp_path)]) == 0

    assert capsys.readouterr().out.startswith(LINE)


@needs_registry
def test_a_file_in_a_layer_of_an_image_is_an_error(
    model: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("model.gguf")
        info.size = len(model)
        archive.addfile(info, io.BytesIO(model))
    layer = ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(buffer.getvalue()), None)
    with running_registry(tmp_path / "registry") as registry:
        url = registry.push("image", layer)

        assert main([url, *_access(tmp_path)]) == 1

    assert "it is in a layer of a container image, of which no part can be read" in caplog.text


def _access(folder: Path) -> list[str]:
    token = folder / "token"
    token.write_text(USER)
    return ["--ca-file", str(CERTIFICATE), "--token-file", str(token)]
