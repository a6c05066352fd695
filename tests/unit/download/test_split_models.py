"""A split model: its files are fetched from the URL of the first one."""

import errno
import hashlib
from pathlib import Path

import httpx
import pytest

from gguf_files import gguf, split_gguf
from model_host import ModelHost, Reply, by_name, content, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download import download as module
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.records import FileRecord
from slotkeeper.download.storage import StorageLimits

FILES = split_gguf({"a": 1024}, {"b": 512, "c": 256}, {"d": 128})
OTHERS = split_gguf({"a": 1024}, {"b": 512}, {"c": 256})
NAMES = [f"model-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
OF_FIRST = "the model of the first file has"
SIZE = sum(map(len, FILES))


@pytest.fixture
def environment(client: httpx.Client) -> Environment:
    return Environment(client, clock=lambda: 0.0, sleep=lambda _: None, chance=lambda: 0.0)


def serve(host: ModelHost, **replaced: Reply | None) -> None:
    """Serve the files; `second=None` leaves one out, `second=…` responds otherwise."""
    replies: dict[str, Reply] = {}
    for ordinal, name, body in zip(("first", "second", "third"), NAMES, FILES, strict=True):
        reply = replaced.get(ordinal, content(body))
        if reply is not None:
            replies[name] = reply
    host.respond_with(by_name(replies))


def model(host: ModelHost, folder: Path, *sha256: str, query: str = "") -> File:
    url = host.url.replace("model.gguf", NAMES[0]) + query
    return File(url, folder / NAMES[0], parts_sha256=sha256)


def digests() -> list[str]:
    return [hashlib.sha256(body).hexdigest() for body in FILES]


def failure(file: File, environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(file, environment)
    return caught.value


def test_all_files_are_put_beside_the_first_one(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)

    record = download(model(host, tmp_path, query="?download=true"), environment)

    assert [(tmp_path / name).read_bytes() for name in NAMES] == FILES
    assert host.paths == [f"/{name}?download=true" for name in NAMES]
    assert (record.size, record.sha256) == (SIZE, digests()[0])


def test_complete_files_are_not_downloaded_again(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)
    first = download(model(host, tmp_path), environment)

    host.respond_with(status(500))

    assert download(model(host, tmp_path, *digests()), environment) == first
    assert host.requests == []


def test_a_missing_file_is_named_and_the_others_are_kept(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host, second=None)

    error = failure(model(host, tmp_path), environment)

    assert error.reason is Reason.MODEL_NOT_FOUND
    assert error.message == (
        f"file 2 of 3: GET {host.url.replace('model.gguf', NAMES[1])} returned 404 Not Found"
    )
    serve(host)
    download(model(host, tmp_path), environment)
    assert host.paths == [f"/{name}" for name in NAMES[1:]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (FILES[2], "file 3 of 3 according to its GGUF header, not file 2 of 3"),
        (gguf({"b": 512}), "a whole model according to its GGUF header, not file 2 of 3"),
        (split_gguf({}, {})[1], "file 2 of 2 according to its GGUF header, not file 2 of 3"),
        (
            OTHERS[1],
            f"of another model: that has 3 tensors, and {OF_FIRST} 4",
        ),
        (
            split_gguf({}, dict.fromkeys("bcde", 1), {})[1],
            f"of another model: with it, 2 of 3 files have 5 tensors, and {OF_FIRST} 4",
        ),
    ],
)
def test_a_file_of_another_model_is_rejected(
    host: ModelHost, environment: Environment, tmp_path: Path, body: bytes, message: str
) -> None:
    serve(host, second=content(body))

    error = failure(model(host, tmp_path), environment)

    assert error.reason is Reason.MODEL_SPLIT
    assert error.message.startswith("file 2 of 3: GET ")
    assert error.message.endswith(f" returned a file that is {message}")
    assert not (tmp_path / NAMES[1]).exists()


def test_files_that_lack_tensors_together_are_rejected(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    empty = gguf({}, split_no=2, split_count=3, model_tensors=4)
    serve(host, third=content(empty))

    error = failure(model(host, tmp_path), environment)

    assert error.reason is Reason.MODEL_SPLIT
    assert "3 of 3 files have 3 tensors, and the model of the first file has 4" in error.message


def test_a_file_of_another_model_that_is_in_place_is_downloaded_again(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)
    download(model(host, tmp_path), environment)
    (tmp_path / NAMES[1]).write_bytes(OTHERS[1] + bytes(len(FILES[1]) - len(OTHERS[1])))

    download(model(host, tmp_path), environment)

    assert (tmp_path / NAMES[1]).read_bytes() == FILES[1]


def test_each_file_has_its_own_checksum(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)
    first, _, third = digests()

    error = failure(model(host, tmp_path, first, "0" * 64, third), environment)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert error.message.startswith("file 2 of 3: ")


def test_the_maximum_size_is_for_all_files_together(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host)
    limited = Environment(
        environment.client,
        environment.clock,
        environment.sleep,
        environment.chance,
        limits=StorageLimits(SIZE - 1),
    )

    error = failure(model(host, tmp_path), limited)

    assert error.reason is Reason.MODEL_TOO_LARGE
    assert error.message.startswith("file 3 of 3: ")
    assert f"after {SIZE - len(FILES[2])} bytes of other files" in error.message


def test_an_interrupted_file_is_resumed(
    host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    serve(host, second=content(FILES[1], cut=1000))

    download(model(host, tmp_path), environment)

    assert host.requests[2]["Range"] == "bytes=1000-"
    assert (tmp_path / NAMES[1]).read_bytes() == FILES[1]


def test_a_volume_that_cannot_be_written_is_used_if_it_has_all_files(
    host: ModelHost, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(host)
    first = download(model(host, tmp_path), environment)
    _make_read_only(monkeypatch)

    assert download(model(host, tmp_path), environment) == first

    (tmp_path / NAMES[2]).unlink()
    error = failure(model(host, tmp_path), environment)
    assert error.reason is Reason.STORAGE_ERROR
    assert "Read-only file system" in error.message


def _make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let locks and records fail as on a read-only volume. Tests may run as root."""

    def file_lock(path: Path, _on_locked: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    def write(path: Path, _record: FileRecord) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(module, "file_lock", file_lock)
    monkeypatch.setattr(module, "write", write)
