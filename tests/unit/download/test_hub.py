"""Files of hf:// URLs, from a fake hub that the real package huggingface_hub reads too."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

from fake_hub import REPOSITORY, FakeHub, fake_hub
from gguf_files import gguf, split_gguf
from model_host import content, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.main import main
from slotkeeper.download.token import Token
from slotkeeper.download.transfer import new_client

ONE, TWO = gguf({"a": 1024}), gguf({"a": 512, "b": 512})
FILES = {
    "README.md": b"# Model",
    "Model-Q4_K_M.gguf": ONE,
    "Model-Q8_0.gguf": TWO,
    "IQ/Model.IQ4_XS.gguf": TWO,
    "mmproj-Q8_0.gguf": ONE,
}
SPLIT = [f"Q6_K/Model-Q6_K-{number:05}-of-00002.gguf" for number in (1, 2)]
PARTS = split_gguf({"a": 256}, {"b": 256})


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.push(FILES)
        yield hub


@pytest.fixture
def environment(client: httpx.Client, hub: FakeHub) -> Environment:
    return Environment(
        client,
        clock=lambda: 0.0,
        sleep=lambda _: None,
        chance=lambda: 0.0,
        hub_endpoint=hub.endpoint,
    )


def model(folder: Path, reference: str, sha256: str | None = None) -> File:
    return File(f"hf://{REPOSITORY}{reference}", folder / "model.gguf", sha256)


def failure(file: File, environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(file, environment)
    return caught.value


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("/Model-Q4_K_M.gguf", "Model-Q4_K_M.gguf"),
        ("/IQ/Model.IQ4_XS.gguf@main", "IQ/Model.IQ4_XS.gguf"),
        (":Q4_K_M", "Model-Q4_K_M.gguf"),
        (":q8_0@main", "Model-Q8_0.gguf"),
        (":iq4_xs", "IQ/Model.IQ4_XS.gguf"),
    ],
)
def test_a_file_is_downloaded_from_the_commit_of_the_revision(
    hub: FakeHub, environment: Environment, tmp_path: Path, reference: str, name: str
) -> None:
    record = download(model(tmp_path, reference), environment)

    assert (tmp_path / "model.gguf").read_bytes() == FILES[name]
    assert record.url == f"{hub.endpoint}/{REPOSITORY}/resolve/{hub.branches['main']}/{name}"
    assert record.name == name


def test_the_name_of_a_file_in_place_is_known_without_its_record(
    environment: Environment, tmp_path: Path
) -> None:
    record = download(model(tmp_path, ":Q4_K_M"), environment)
    path = tmp_path / "model.gguf.json"
    tree = json.loads(path.read_text())
    del tree["name"]
    path.write_text(json.dumps(tree))

    assert download(model(tmp_path, ":Q4_K_M"), environment) == record


def test_the_real_huggingface_hub_finds_the_same(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    record = download(model(tmp_path, "/IQ/Model.IQ4_XS.gguf"), environment)

    info = HfApi(endpoint=hub.endpoint, token=False).model_info(REPOSITORY, files_metadata=True)
    [file] = [each for each in info.siblings or [] if each.rfilename == "IQ/Model.IQ4_XS.gguf"]
    url = hf_hub_url(REPOSITORY, file.rfilename, revision=info.sha, endpoint=hub.endpoint)
    metadata = get_hf_file_metadata(url, token=False, endpoint=hub.endpoint)
    assert record.url == url
    assert file.lfs is not None
    assert record.sha256 == file.lfs.sha256 == metadata.etag
    assert (record.size, info.sha) == (metadata.size, metadata.commit_hash)
    # The paths that it requests are those that the download requested.
    listing = f"/api/models/{REPOSITORY}"
    assert hub.paths[0] == f"{listing}/revision/main"
    assert listing in hub.paths[1:]


def test_names_that_a_hub_chooses_are_shown_as_plain_text(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    """A terminal would obey them, and a log would have lines of the hub's choice."""
    hub.push({f"\x1b[2J\n{'x' * 9999}{n}-Q4_K_M.gguf": ONE for n in range(2)})
    several = failure(model(tmp_path, ":Q4_K_M"), environment)
    missing = failure(model(tmp_path, "/other.gguf"), environment)
    hub.push({"\u202e\n-Q4_K_M.gguf": ONE})
    checksum = failure(model(tmp_path, ":Q4_K_M", "0" * 64), environment)
    hub.push({"\x1b-Q4_K_M-00001-of-00002.gguf": ONE})
    split = failure(model(tmp_path, ":Q4_K_M"), environment)

    for error in (several, missing, checksum, split):
        assert error.message.isprintable()
        assert len(error.message) < 1000


def test_a_name_that_leads_out_of_the_repository_is_no_file_of_it(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    hub.push({"../../../../other/Model/resolve/main/Model-Q4_K_M.gguf": ONE})

    assert failure(model(tmp_path, ":Q4_K_M"), environment).reason is Reason.MODEL_NOT_FOUND
    assert len(hub.paths) == 1


def test_a_tag_a_commit_and_a_reference_with_a_slash_are_revisions(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    other = hub.push({"Model-Q4_K_M.gguf": TWO}, "refs/pr/1")
    hub.branches["v1.0"] = other

    for revision in ("refs/pr/1", "v1.0", other):
        folder = tmp_path / revision.replace("/", "-")
        record = download(model(folder, f":Q4_K_M@{revision}"), environment)
        assert (record.size, other in record.url) == (len(TWO), True)


def test_the_hub_s_checksum_is_verified(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    hub.replies[ONE] = content(TWO)

    error = failure(model(tmp_path, ":Q4_K_M"), environment)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert error.message.endswith(f"expected {hashlib.sha256(ONE).hexdigest()}")


def test_another_file_than_expected_is_noticed_before_it_is_downloaded(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    error = failure(model(tmp_path, ":Q4_K_M", "0" * 64), environment)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert "according to the hub Model-Q4_K_M.gguf has the SHA-256 " in error.message
    assert len(hub.paths) == 1


def test_files_of_two_commits_never_mix(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    hub.push(dict(zip(SPLIT, PARTS, strict=True)))
    file = File(f"hf://{REPOSITORY}/{SPLIT[0]}", tmp_path / "model-00001-of-00002.gguf")
    hub.replies[PARTS[1]] = status(503)
    assert failure(file, environment).message.startswith("file 2 of 2: ")
    hub.replies.clear()
    hub.push(dict(zip(SPLIT, split_gguf({"a": 1}, {"b": 1}), strict=True)))

    download(file, environment)

    names = ("model-00001-of-00002.gguf", "model-00002-of-00002.gguf")
    assert [(tmp_path / name).read_bytes() for name in names] == PARTS
    assert sum("/api/models/" in path for path in hub.paths) == 1


def test_a_commit_that_has_gone_is_resolved_again_at_the_next_start(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    hub.replies[ONE] = status(503)
    failure(model(tmp_path, ":Q4_K_M"), environment)
    hub.commits.clear()
    hub.push({"Model-Q4_K_M.gguf": TWO})

    assert failure(model(tmp_path, ":Q4_K_M"), environment).reason is Reason.MODEL_NOT_FOUND

    download(model(tmp_path, ":Q4_K_M"), environment)
    assert (tmp_path / "model.gguf").read_bytes() == TWO


def test_a_file_in_place_needs_no_hub(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    first = download(model(tmp_path, ":Q4_K_M"), environment)
    hub.push({"Model-Q4_K_M.gguf": TWO})
    hub.paths.clear()

    assert download(model(tmp_path, ":Q4_K_M"), environment) == first
    assert hub.paths == []

    download(model(tmp_path, "/Model-Q4_K_M.gguf@main"), environment)
    assert (tmp_path / "model.gguf").read_bytes() == TWO


@pytest.mark.parametrize(
    "record",
    [
        "{}",
        '{"source": "SOURCE", "commit": "../../x", "files": []}',
        '{"source": "SOURCE", "commit": "COMMIT", "files": []}',
        '{"source": "SOURCE", "commit": "COMMIT", "files": [{"name": "../a", "sha256": null}]}',
        '{"source": "SOURCE", "commit": "COMMIT", "files": [{"name": "a", "sha256": "b"}]}',
        '{"source": "SOURCE", "commit": "COMMIT", "files": [{"name": 1}]}',
    ],
)
def test_a_malformed_record_is_ignored(
    hub: FakeHub, environment: Environment, tmp_path: Path, record: str
) -> None:
    download(model(tmp_path, ":Q4_K_M"), environment)
    path = tmp_path / "model.gguf.hub.json"
    source = json.loads(path.read_text())["source"]
    path.write_text(record.replace("SOURCE", source).replace("COMMIT", hub.branches["main"]))

    download(model(tmp_path, ":Q4_K_M"), environment)

    assert json.loads(path.read_text())["files"][0]["name"] == "Model-Q4_K_M.gguf"


def test_the_url_of_a_split_model_in_a_message_has_the_revision(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    hub.push(dict(zip(SPLIT, PARTS, strict=True)), "v1.0")

    error = failure(model(tmp_path, ":Q6_K@v1.0"), environment)

    assert error.message.endswith(f"use hf://{REPOSITORY}/{SPLIT[0]}@v1.0")


@pytest.mark.parametrize(
    ("reference", "reason", "message"),
    [
        (
            "/Model-Q5_K_M.gguf",
            Reason.MODEL_NOT_FOUND,
            "no file Model-Q5_K_M.gguf; its GGUF files: Model-Q4_K_M.gguf, Model-Q8_0.gguf, ",
        ),
        (
            ":Q5_K_M",
            Reason.MODEL_NOT_FOUND,
            "no file of the quantization Q5_K_M; its GGUF files: Model-Q4_K_M.gguf, ",
        ),
        (":4_K_M", Reason.MODEL_NOT_FOUND, "no file of the quantization 4_K_M; its GGUF files: "),
        (
            ":F16",
            Reason.MODEL_AMBIGUOUS,
            "several files of this quantization, name one in the URL: a/F16.gguf, b/F16.gguf",
        ),
        (
            ":Q6_K",
            Reason.MODEL_SPLIT,
            f"a split model of this quantization: use hf://{REPOSITORY}/{SPLIT[0]}",
        ),
        (
            ":Q4_K_M@dev",
            Reason.MODEL_NOT_FOUND,
            f"or the hub has no repository {REPOSITORY} with the revision dev",
        ),
    ],
)
def test_what_the_hub_lacks_is_reported_with_what_it_has(
    hub: FakeHub,
    environment: Environment,
    tmp_path: Path,
    reference: str,
    reason: Reason,
    message: str,
) -> None:
    split = dict(zip(SPLIT, PARTS, strict=True))
    hub.push({**FILES, "a/F16.gguf": ONE, "b/F16.gguf": ONE, **split})

    error = failure(model(tmp_path, reference), environment)

    assert error.reason is reason
    assert message in error.message


def test_a_missing_repository_may_be_a_private_one(
    environment: Environment, tmp_path: Path
) -> None:
    error = failure(File("hf://org/other:Q4_K_M", tmp_path / "model.gguf"), environment)

    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "set spec.model.tokenSecretRef" in error.message
    assert error.message.endswith("or the hub has no repository org/other with the revision main")


def test_the_token_is_sent_to_the_hub_and_not_to_the_host_of_its_files(
    hub: FakeHub, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_CANARY"
    monkeypatch.setattr("slotkeeper.download.token.HTTP_URL", ".*")
    token = Token("hf_CANARY", frozenset({"127.0.0.1"}), allow_http=True)
    with new_client(token) as client:
        download(model(tmp_path, ":Q4_K_M"), replace(environment, client=client))

    assert "CANARY" not in (tmp_path / "model.gguf.hub.json").read_text()
    with new_client(replace(token, hosts=frozenset({"huggingface.co"}))) as client:
        other = model(tmp_path / "other", ":Q4_K_M")
        error = failure(other, replace(environment, client=client))
    assert error.reason is Reason.MODEL_TOKEN_NOT_ALLOWED


def test_a_hub_that_is_overloaded_is_asked_again(
    hub: FakeHub, environment: Environment, tmp_path: Path
) -> None:
    hub.failures = 2

    download(model(tmp_path, ":Q4_K_M"), environment)

    hub.failures = 99
    error = failure(model(tmp_path / "other", ":Q4_K_M"), environment)
    assert error.reason is Reason.MODEL_SERVER_ERROR


@pytest.mark.parametrize(
    "body", [b"<html>", b"[" * 9999, b"[]", b'{"sha": "main", "siblings": []}']
)
def test_another_server_is_no_hub(
    hub: FakeHub,
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
) -> None:
    monkeypatch.setattr(hub, "respond", content(body))

    error = failure(model(tmp_path, ":Q4_K_M"), environment)

    assert error.reason is Reason.MODEL_DOWNLOAD_REJECTED
    assert "did not return the list of files of a repository" in error.message


def test_hf_endpoint_is_the_hub(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/")
    file = model(tmp_path, ":Q4_K_M")

    assert main(["--model", file.url, "--to", str(file.path)]) == 0

    assert file.path.read_bytes() == ONE
