"""Download of a model with its projector and adapters."""

import json
from pathlib import Path
from threading import Barrier, Thread

import httpx
import pytest

from model_host import GGUF, OTHER, SHA256, ModelHost, Reply, content, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.main import main


@pytest.fixture
def environment(client: httpx.Client) -> Environment:
    return Environment(client, clock=lambda: 0.0, sleep=lambda _: None, chance=lambda: 0.0)


def files(host: ModelHost, folder: Path) -> list[File]:
    return [
        File(host.url, folder / "model.gguf", SHA256),
        File(f"{host.url}?mmproj", folder / "mmproj.gguf", role="model.mmproj"),
        File(f"{host.url}?lora", folder / "adapter-0.gguf", role="model.adapters[0]"),
    ]


def test_all_files_are_put_in_place(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    host.respond_with(content(), content(OTHER), content(GGUF[:999]))

    records = download_all(files(host, tmp_path), environment)

    assert [record.size for record in records] == [len(GGUF), len(OTHER), 999]
    assert (tmp_path / "mmproj.gguf").read_bytes() == OTHER
    assert (tmp_path / "adapter-0.gguf").read_bytes() == GGUF[:999]


@pytest.mark.parametrize(
    ("responses", "prefix"),
    [
        ([status(404)], ""),
        ([content(), status(404)], "model.mmproj: "),
        ([content(), content(), status(404)], "model.adapters[0]: "),
    ],
)
def test_a_failure_names_the_field_of_its_file(
    host: ModelHost, environment: Environment, tmp_path: Path, responses: list[Reply], prefix: str
) -> None:
    host.respond_with(*responses)

    with pytest.raises(DownloadError) as caught:
        download_all(files(host, tmp_path), environment)

    assert caught.value.reason is Reason.MODEL_NOT_FOUND
    assert caught.value.message == f"{prefix}GET {host.url} returned 404 Not Found"


def test_a_file_in_place_is_not_downloaded_again_after_another_failed(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    host.respond_with(content(), status(404))
    with pytest.raises(DownloadError):
        download_all(files(host, tmp_path), environment)

    host.respond_with(content())
    download_all(files(host, tmp_path), environment)

    assert len(host.requests) == 2


def test_two_pods_that_share_a_cache_download_each_file_once(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    host.respond_with(content())
    ready = Barrier(2)

    def pod() -> None:
        ready.wait(10)
        download_all(files(host, tmp_path), environment)

    pods = [Thread(target=pod), Thread(target=pod)]
    for thread in pods:
        thread.start()
    for thread in pods:
        thread.join(10)

    assert not any(thread.is_alive() for thread in pods)
    assert len(host.requests) == 3
    assert (tmp_path / "model.gguf").read_bytes() == GGUF


def test_the_termination_message_describes_the_model(host: ModelHost, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    host.respond_with(content(), content(OTHER))

    code = main(
        [
            *("--model", host.url, "--to", str(tmp_path / "model.gguf")),
            *("--mmproj", f"{host.url}?mmproj", "--to", str(tmp_path / "mmproj.gguf")),
            *("--termination-log", str(log)),
        ]
    )

    assert code == 0
    assert json.loads(log.read_text()) == {
        "sizeBytes": len(GGUF),
        "sha256": SHA256,
        "receivedBytes": len(GGUF) + len(OTHER),
    }
