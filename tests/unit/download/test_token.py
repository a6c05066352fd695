"""The token is sent only to the hosts of the URLs, and appears nowhere else."""

import json
from pathlib import Path

import pytest

from download_harness import DownloadHarness
from model_host import ModelHost, content, model_host, redirect, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.main import main
from slotkeeper.download.token import read_token
from slotkeeper.download.transfer import new_client

CANARY = "hf_CANARY"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def test_the_token_is_sent_on_each_request_to_the_url_s_own_host(
    host: ModelHost, path: Path
) -> None:
    host.respond_with(content(cut=99), redirect("/there"), content())

    with new_client(CANARY) as client:
        DownloadHarness(client, path).download(host.url)

    assert [headers["Authorization"] for headers in host.requests] == [f"Bearer {CANARY}"] * 3


def test_the_token_is_not_sent_to_a_host_that_is_redirected_to(host: ModelHost, path: Path) -> None:
    with model_host() as elsewhere, new_client(CANARY) as client:
        elsewhere.respond_with(content(cut=99), redirect(host.url), content())
        host.respond_with(redirect(elsewhere.url), redirect(elsewhere.url), content())
        DownloadHarness(client, path).download(host.url)

    assert [headers["Authorization"] for headers in elsewhere.requests] == [None] * 2
    assert [headers["Authorization"] for headers in host.requests] == [f"Bearer {CANARY}"] * 2 + [
        None
    ]


@pytest.mark.parametrize("text", ["hf_a", "hf_a\n", "  hf_a \r\n"])
def test_white_space_around_a_token_is_removed(file: Path, text: str) -> None:
    file.write_text(text)

    assert read_token(file) == "hf_a"


@pytest.mark.parametrize(
    "text",
    ["", " \n", f"{CANARY}\nX-More: 1", f"a {CANARY}", f"{CANARY}é", f"{CANARY}\x00", "a" * 16_385],
)
def test_an_invalid_token_is_rejected_and_not_quoted(file: Path, text: str) -> None:
    file.write_text(text)

    with pytest.raises(DownloadError, match=r"model\.tokenSecretRef\) is not a token") as caught:
        read_token(file)

    assert caught.value.reason is Reason.MODEL_TOKEN_INVALID
    assert "CANARY" not in str(caught.value)


def test_an_unreadable_token_is_reported(tmp_path: Path, file: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()

    code = main(_argv(tmp_path, file, log, "http://127.0.0.1:1/"))

    assert code == 1
    assert json.loads(log.read_text()) == {
        "reason": "ModelTokenInvalid",
        "message": "cannot read the token for downloads (model.tokenSecretRef): "
        "No such file or directory",
    }


@pytest.mark.parametrize("code", [200, 403, 503])
def test_no_token_is_logged_or_stored(
    host: ModelHost, tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    file.write_text(CANARY)
    log = tmp_path / "termination-log"
    log.touch()
    host.respond_with(content() if code == 200 else status(code))

    main(_argv(tmp_path, file, log, host.url))

    stored = [each for each in tmp_path.rglob("*") if each.is_file() and each != file]
    assert host.requests[0]["Authorization"] == f"Bearer {CANARY}"
    assert CANARY not in caplog.text
    assert [each for each in stored if CANARY.encode() in each.read_bytes()] == []


def test_a_rejected_token_is_reported(host: ModelHost, tmp_path: Path, file: Path) -> None:
    file.write_text(CANARY)
    log = tmp_path / "termination-log"
    log.touch()
    host.respond_with(status(403))

    main(_argv(tmp_path, file, log, host.url))

    message = json.loads(log.read_text())["message"]
    assert message.endswith("403 Forbidden: the token in spec.model.tokenSecretRef is not accepted")


def _argv(folder: Path, token: Path, log: Path, url: str) -> list[str]:
    to = folder / "models" / "model.gguf"
    return [
        *("--token-file", str(token), "--model", url, "--to", str(to)),
        *("--tries", "1", "--termination-log", str(log)),
    ]
