"""All files are checked before the weights of any are downloaded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gguf_files import split_gguf
from model_host import ModelHost, Reply, by_name, content, status
from ranged_model import RangedModel, large_model
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.body import BLOCK_BYTES
from slotkeeper.download.download import Environment, download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.ranges import SEGMENT_BYTES
from slotkeeper.download.storage import StorageLimits

SIZE = 4 * SEGMENT_BYTES
MODEL = large_model(SIZE, kind="model", architecture="llama")
PROJECTOR = large_model(SIZE, kind="mmproj", architecture="clip")
ADAPTER = large_model(SIZE, kind="adapter", architecture="llama")
HEADERS = 3 * 2 * BLOCK_BYTES
"""At most so many bytes arrive with the headers of all files."""


@pytest.fixture
def environment(client: httpx.Client) -> Environment:
    return Environment(
        client, clock=lambda: 0.0, sleep=lambda _: None, chance=lambda: 0.0, fast=None
    )


def files(host: ModelHost, folder: Path) -> list[File]:
    return [
        File(host.url, folder / "model.gguf"),
        File(host.url.replace("model", "mmproj"), folder / "mmproj.gguf", role="model.mmproj"),
        File(host.url.replace("model", "lora"), folder / "lora.gguf", role="model.adapters[0]"),
    ]


def serve(host: ModelHost, **others: Reply) -> None:
    replies: Mapping[str, Reply] = {
        "model": RangedModel(MODEL),
        "mmproj": RangedModel(PROJECTOR),
        "lora": RangedModel(ADAPTER),
    }
    host.respond_with(by_name({f"{key}.gguf": each for key, each in {**replies, **others}.items()}))


def test_a_draft_of_another_vocabulary_is_rejected_before_the_weights_of_the_model(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    words = [str(number) for number in range(200)]
    serve(
        host,
        model=RangedModel(large_model(SIZE, architecture="llama", tokens=words)),
        draft=RangedModel(large_model(SIZE, architecture="llama", tokens=words[:50])),
    )
    draft = File(
        host.url.replace("model", "draft"),
        tmp_path / "draft.gguf",
        role="speculative.draft",
        same_vocabulary=True,
    )

    error = failure([files(host, tmp_path)[0], draft], environment)

    assert error.reason is Reason.MODEL_TYPE_MISMATCH
    assert error.message.startswith("speculative.draft: GET ")
    assert "it has 50 tokens of the tokenizer 'llama', and the model has 200" in error.message
    assert received(tmp_path) <= HEADERS


def received(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.gguf*"))


def failure(files: list[File], environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download_all(files, environment)
    return caught.value


def test_files_that_fit_are_downloaded(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)

    records = download_all(files(host, tmp_path), environment)

    assert [record.size for record in records] == [len(MODEL), len(PROJECTOR), len(ADAPTER)]
    assert (tmp_path / "model.gguf").read_bytes() == MODEL
    assert (tmp_path / "mmproj.gguf").read_bytes() == PROJECTOR
    assert (tmp_path / "lora.gguf").read_bytes() == ADAPTER


@pytest.mark.parametrize(
    ("wrong", "reason", "message"),
    [
        ({"lora": status(404)}, Reason.MODEL_NOT_FOUND, "model.adapters[0]: GET "),
        ({"lora": status(503)}, Reason.MODEL_SERVER_ERROR, "model.adapters[0]: GET "),
        ({"mmproj": content(b"<html>")}, Reason.MODEL_NOT_GGUF, "model.mmproj: GET "),
        (
            {"lora": RangedModel(ADAPTER[: SIZE // 2])},
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            "the host has only a part of it",
        ),
        (
            {"mmproj": RangedModel(ADAPTER), "lora": RangedModel(PROJECTOR)},
            Reason.MODEL_TYPE_MISMATCH,
            "a LoRA adapter (model.adapters) according to its GGUF header, not a projector",
        ),
        (
            {"model": RangedModel(PROJECTOR)},
            Reason.MODEL_TYPE_MISMATCH,
            "a projector (model.mmproj) according to its GGUF header, not a model",
        ),
        (
            {"lora": RangedModel(large_model(SIZE, kind="adapter", architecture="qwen2"))},
            Reason.MODEL_TYPE_MISMATCH,
            "'qwen2', and this model has 'llama'",
        ),
    ],
)
def test_a_wrong_file_is_rejected_before_the_weights_of_the_others(
    host: ModelHost,
    environment: Environment,
    tmp_path: Path,
    wrong: Mapping[str, Reply],
    reason: Reason,
    message: str,
) -> None:
    serve(host, **wrong)

    error = failure(files(host, tmp_path), environment)

    assert error.reason is reason
    assert message in error.message
    assert received(tmp_path) <= HEADERS


def test_files_that_do_not_fit_on_the_volume_together_are_rejected(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)
    limits = StorageLimits(free_bytes=lambda _: 2 * SIZE)

    error = failure(files(host, tmp_path), replace(environment, limits=limits))

    assert error.reason is Reason.INSUFFICIENT_STORAGE
    assert "all files together" in error.message
    assert received(tmp_path) <= HEADERS


@pytest.mark.parametrize("several", [True, False])
def test_files_above_the_size_limit_of_the_pod_are_rejected(
    host: ModelHost, environment: Environment, tmp_path: Path, several: bool
) -> None:
    serve(host)
    limit = (3 if several else 1) * SIZE
    limits = StorageLimits(all_files_bytes=limit)

    requested = files(host, tmp_path)[: 3 if several else 1]
    error = failure(requested, replace(environment, limits=limits))

    assert error.reason is Reason.INSUFFICIENT_STORAGE
    assert f"more than the {limit // 2**20}Mi of model.cache.sizeLimit" in error.message
    assert received(tmp_path) <= HEADERS


def test_a_resumed_download_is_checked_without_a_request(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host, mmproj=status(404))
    failure(files(host, tmp_path), environment)
    kept = (tmp_path / "model.gguf.part").stat().st_size
    assert kept

    serve(host, mmproj=status(404))
    failure(files(host, tmp_path), environment)
    assert host.paths == ["/mmproj.gguf"]

    serve(host)
    download_all(files(host, tmp_path), environment)
    assert host.requests[host.paths.index("/model.gguf")]["Range"] == f"bytes={kept}-"
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


def test_an_adapter_that_does_not_fit_a_model_in_place_is_rejected(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    model, _, adapter = files(host, tmp_path)
    serve(host, lora=RangedModel(large_model(SIZE, kind="adapter", architecture="qwen2")))
    download_all([model], environment)

    error = failure([model, adapter], environment)

    assert error.reason is Reason.MODEL_TYPE_MISMATCH


def test_a_file_of_a_split_model_that_is_missing_is_noticed_first(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    first, second, _ = split_gguf({"a": SIZE // 4}, {"b": SIZE // 4}, {"c": SIZE // 4})
    names = [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    host.respond_with(by_name({names[0]: RangedModel(first), names[1]: RangedModel(second)}))

    url = host.url.replace("model.gguf", names[0])
    error = failure([File(url, tmp_path / names[0])], environment)

    assert error.reason is Reason.MODEL_NOT_FOUND
    assert "file 3 of 3" in error.message
    assert received(tmp_path) <= HEADERS
