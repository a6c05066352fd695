"""Files of pvc:// URLs: they are on a volume already, and only verified."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from gguf_files import gguf, split_gguf
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.main import main
from slotkeeper.download.sources.claim import verify

BODY = gguf({"a": 1024})
SHA256 = hashlib.sha256(BODY).hexdigest()
URL = "pvc://models/llama/model.gguf"


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """The mount of a claim with a folder for the model."""
    (tmp_path / "models" / "llama").mkdir(parents=True)
    return tmp_path / "models"


def model(claim: Path, url: str = URL, sha256: str | None = None, *parts: str) -> File:
    return File(url, claim / url.removeprefix("pvc://models/"), sha256, parts_sha256=parts)


def failure(file: File) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        verify(file)
    return caught.value


def listing(claim: Path) -> set[str]:
    return {str(path.relative_to(claim)) for path in claim.rglob("*")}


def test_a_model_is_verified_where_it_is(claim: Path) -> None:
    (claim / "llama/model.gguf").write_bytes(BODY)

    record = verify(model(claim, URL, SHA256))

    assert (record.url, record.size, record.sha256) == (URL, len(BODY), SHA256)
    assert listing(claim) == {"llama", "llama/model.gguf"}


def test_without_an_expected_checksum_the_file_is_not_read_to_its_end(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claim / "llama/model.gguf").write_bytes(BODY)
    monkeypatch.delattr(hashlib, "file_digest")

    assert verify(model(claim)).sha256 == ""


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (b"<!doctype html>", Reason.MODEL_NOT_GGUF, "is not a GGUF file: it is a web page"),
        (b"", Reason.MODEL_NOT_GGUF, "is not a GGUF file: it is empty"),
        (
            BODY[:-1],
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            f"has {len(BODY) - 1} bytes, but according to its GGUF header at least {len(BODY)}",
        ),
        (
            gguf({"a": 1}, split_no=0, split_count=2),
            Reason.MODEL_SPLIT,
            "is one of 2 files of a split model: use the URL of the first one",
        ),
        (
            gguf({"b": 1024}),
            Reason.MODEL_CHECKSUM_MISMATCH,
            f"has the SHA-256 {hashlib.sha256(gguf({'b': 1024})).hexdigest()}, expected {SHA256}",
        ),
    ],
)
def test_another_content_is_rejected(
    claim: Path, body: bytes, reason: Reason, message: str
) -> None:
    (claim / "llama/model.gguf").write_bytes(body)

    error = failure(model(claim, URL, SHA256))

    assert error.reason is reason
    assert error.message.startswith(f"{URL} {message}")


def test_a_missing_file_is_named(claim: Path) -> None:
    assert failure(model(claim)).message == (
        f"{URL} does not exist: the claim has no file llama/model.gguf"
    )
    (claim / "llama").rmdir()
    (claim / "llama").write_bytes(BODY)
    assert failure(model(claim)).reason is Reason.MODEL_NOT_FOUND


def test_a_folder_or_a_pipe_is_no_model(claim: Path) -> None:
    os.mkfifo(claim / "llama/model.gguf")
    (claim / "folder.gguf").mkdir()

    for url in (URL, "pvc://models/folder.gguf"):
        error = failure(model(claim, url))
        assert (error.reason, error.message) == (
            Reason.MODEL_NOT_GGUF,
            f"{url} is not a regular file",
        )


def test_links_lead_to_files_of_the_same_claim_only(claim: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_CANARY")
    (claim / "blob").write_bytes(BODY)
    link = claim / "llama/model.gguf"

    link.symlink_to("../blob")
    assert verify(model(claim)).size == len(BODY)

    link.unlink()
    link.symlink_to(secret)
    error = failure(model(claim))
    assert error.reason is Reason.MODEL_URL_NOT_ALLOWED
    assert error.message == f"{URL} is a link to a file outside of the claim"

    link.unlink()
    link.symlink_to(link)
    assert failure(model(claim)).reason is Reason.STORAGE_ERROR


@pytest.mark.parametrize(
    "url", ["pvc://models/../token", "pvc://models/./a", "pvc://../a", "file:///a", "pvc://models"]
)
def test_no_path_leads_out_of_the_claim(tmp_path: Path, url: str, claim: Path) -> None:
    (tmp_path / "token").write_bytes(BODY)
    log = tmp_path / "log"
    log.touch()

    code = main(["--model", url, "--to", str(claim / "../token"), "--termination-log", str(log)])

    assert code == 1
    assert json.loads(log.read_text())["reason"] == "ModelURLNotAllowed"


def test_an_unreadable_file_is_reported_with_the_remedy(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claim / "llama/model.gguf").write_bytes(BODY)

    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)

    error = failure(model(claim))

    assert error.reason is Reason.STORAGE_ERROR
    assert error.message.startswith(f"cannot read {URL}: ")
    assert error.message.endswith(
        "it must be readable by the user 65532 or its group, or by all users"
    )


def test_a_split_model_must_be_complete(claim: Path) -> None:
    url = "pvc://models/llama/m-00001-of-00002.gguf"
    first, second = split_gguf({"a": 1}, {"b": 1})
    digests = [hashlib.sha256(body).hexdigest() for body in (first, second)]
    (claim / "llama/m-00001-of-00002.gguf").write_bytes(first)

    error = failure(model(claim, url))

    assert error.reason is Reason.MODEL_NOT_FOUND
    assert "no file llama/m-00002-of-00002.gguf" in error.message
    (claim / "llama/m-00002-of-00002.gguf").write_bytes(second)
    record = verify(model(claim, url, None, *digests))
    assert (record.size, record.sha256) == (len(first) + len(second), digests[0])
    assert failure(model(claim, url, None, digests[0], "0" * 64)).message.startswith(
        "pvc://models/llama/m-00002-of-00002.gguf has the SHA-256 "
    )
    (claim / "llama/m-00002-of-00002.gguf").write_bytes(split_gguf({}, {"a": 1, "b": 1, "c": 1})[1])
    assert failure(model(claim, url)).reason is Reason.MODEL_SPLIT


def test_the_metadata_of_a_model_on_a_claim_are_reported(claim: Path, tmp_path: Path) -> None:
    (claim / "llama/model.gguf").write_bytes(BODY)
    log = tmp_path / "log"
    log.touch()
    path = str(claim / "llama/model.gguf")

    assert main(["--model", URL, "--to", path, "--termination-log", str(log)]) == 0

    assert json.loads(log.read_text()) == {"sizeBytes": len(BODY)}


def test_without_a_model_only_the_other_files_are_verified(claim: Path, tmp_path: Path) -> None:
    (claim / "lora.gguf").write_bytes(BODY)
    log = tmp_path / "log"
    log.touch()
    lora = ("--adapter", "pvc://models/lora.gguf", "--to", str(claim / "lora.gguf"))

    assert main([*lora, "--termination-log", str(log)]) == 0

    assert json.loads(log.read_text()) == {}
