"""The token is sent only to hosts that its Secret lists, and appears nowhere else."""

import json
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from typing_extensions import override

from download_harness import DownloadHarness
from model_host import ModelHost, content, model_host, redirect, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.main import main
from slotkeeper.download.token import Token, read_token
from slotkeeper.download.transfer import new_client

CANARY = "hf_CANARY"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    hosts = tmp_path / "hosts"
    hosts.write_text("hf.example 127.0.0.1")
    return hosts


class Loopback(Token):
    """A token that may be sent by http:// to loopback, where the tests' model hosts are."""

    @override
    def require_allowed(self, request: httpx.Request) -> None:
        super().require_allowed(
            httpx.Request("GET", request.url.copy_with(scheme="https"), headers=request.headers)
        )


LOOPBACK = Loopback(CANARY, frozenset({"127.0.0.1"}))


def sent(url: str) -> httpx.Request:
    """A request that contains a token."""
    return httpx.Request("GET", url, headers={"Authorization": f"Bearer {CANARY}"})


def test_a_token_is_sent_by_https_to_a_host_that_its_secret_lists(file: Path, hosts: Path) -> None:
    file.write_text(CANARY)
    hosts.write_text("HF.example, cdn.example\nother.example")

    read_token(file, hosts).require_allowed(sent("https://hf.example/a.gguf"))
    read_token(file, hosts).require_allowed(sent("https://CDN.example:8443/a.gguf"))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.gguf",
        "https://hf.example.evil.example/a.gguf",
        "https://xhf.example/a.gguf",
        "https://hf.example@evil.example/a.gguf",
        "https://evil.example/?hf.example",
    ],
)
@pytest.mark.parametrize("listed", ["hf.example", "", "*", ".example", "evil"])
def test_a_token_is_not_sent_to_another_host(
    url: str, listed: str, file: Path, hosts: Path
) -> None:
    file.write_text(CANARY)
    hosts.write_text(listed)

    with pytest.raises(DownloadError, match="the token is not sent to ") as caught:
        read_token(file, hosts).require_allowed(sent(url))

    assert caught.value.reason is Reason.MODEL_TOKEN_NOT_ALLOWED
    assert "CANARY" not in caught.value.message


@pytest.mark.parametrize(
    ("listed", "end"),
    [
        ("https://hf.example", ", but a URL or a port: it must be names only"),
        ("other.example hf.example:443", ", but a URL or a port: it must be names only"),
        ("hf.example/", ", but a URL or a port: it must be names only"),
        ("other.example, fd00::1, 10.0.0.1", ""),
    ],
)
def test_hosts_that_are_no_names_are_explained_and_not_quoted(
    listed: str, end: str, file: Path, hosts: Path
) -> None:
    file.write_text(CANARY)
    hosts.write_text(listed)

    with pytest.raises(DownloadError) as caught:
        read_token(file, hosts).require_allowed(sent("https://hf.example/a.gguf"))

    assert caught.value.message == (
        "the token is not sent to hf.example: the entry `hosts` of the Secret "
        f"(model.tokenSecretRef) does not contain it{end}"
    )


@pytest.mark.parametrize("url", ["http://models.ns.svc/a", "http://m.ns.svc.cluster.local:80/a"])
def test_a_token_is_sent_by_http_within_the_cluster_if_that_is_allowed(url: str) -> None:
    names = frozenset({httpx.URL(url).host})

    Token(CANARY, names, allow_http=True).require_allowed(sent(url))

    with pytest.raises(DownloadError, match=r"set model\.tokenSecretRef\.allowHttp"):
        Token(CANARY, names).require_allowed(sent(url))


@pytest.mark.parametrize(
    "host",
    ["hf.example", "models", "models.default", "svc.example", "a.svc.example", "10.0.0.1", "[::1]"],
)
def test_a_token_is_never_sent_by_http_beyond_the_cluster(host: str) -> None:
    token = Token(CANARY, frozenset({host.strip("[]")}), allow_http=True)

    with pytest.raises(DownloadError, match="by http://"):
        token.require_allowed(sent(f"http://{host}/a.gguf"))


def test_a_request_without_a_token_may_go_anywhere() -> None:
    Token(CANARY, frozenset()).require_allowed(httpx.Request("GET", "http://cdn.example/"))


def test_no_request_is_sent_to_a_host_that_the_secret_does_not_list(
    host: ModelHost, tmp_path: Path, file: Path, hosts: Path
) -> None:
    file.write_text(CANARY)
    hosts.write_text("hf.example")
    log = tmp_path / "termination-log"
    log.touch()

    code = main(_argv(tmp_path, file, log, host.url))

    assert code == 1
    assert json.loads(log.read_text())["reason"] == "ModelTokenNotAllowed"
    assert host.requests == []


def test_the_token_is_sent_on_each_request_to_the_url_s_own_host(
    host: ModelHost, path: Path
) -> None:
    host.respond_with(content(cut=99), redirect("/there"), content())

    with new_client(LOOPBACK) as client:
        DownloadHarness(client, path).download(host.url)

    assert [headers["Authorization"] for headers in host.requests] == [f"Bearer {CANARY}"] * 3


def test_the_token_is_not_sent_to_a_host_that_is_redirected_to(host: ModelHost, path: Path) -> None:
    with model_host() as elsewhere, new_client(LOOPBACK) as client:
        elsewhere.respond_with(content(cut=99), redirect(host.url), content())
        host.respond_with(redirect(elsewhere.url), redirect(elsewhere.url), content())
        DownloadHarness(client, path).download(host.url)

    assert [headers["Authorization"] for headers in elsewhere.requests] == [None] * 2
    assert [headers["Authorization"] for headers in host.requests] == [f"Bearer {CANARY}"] * 2 + [
        None
    ]


@pytest.mark.parametrize("text", ["hf_a", "hf_a\n", "  hf_a \r\n"])
def test_white_space_around_a_token_is_removed(file: Path, hosts: Path, text: str) -> None:
    file.write_text(text)

    assert read_token(file, hosts) == Token("hf_a", frozenset({"hf.example", "127.0.0.1"}))


@pytest.mark.parametrize(
    "text",
    ["", " \n", f"{CANARY}\nX-More: 1", f"a {CANARY}", f"{CANARY}é", f"{CANARY}\x00", "a" * 16_385],
)
def test_an_invalid_token_is_rejected_and_not_quoted(file: Path, hosts: Path, text: str) -> None:
    file.write_text(text)

    with pytest.raises(DownloadError, match=r"model\.tokenSecretRef\) is not a token") as caught:
        read_token(file, hosts)

    assert caught.value.reason is Reason.MODEL_TOKEN_INVALID
    assert "CANARY" not in str(caught.value)


@pytest.mark.usefixtures("hosts")
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
    host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    path = tmp_path / "models" / "model.gguf"
    host.respond_with(content() if code == 200 else status(code))

    with new_client(LOOPBACK) as client, suppress(DownloadError):
        DownloadHarness(client, path).download(host.url)

    stored = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert host.requests[0]["Authorization"] == f"Bearer {CANARY}"
    assert CANARY not in caplog.text
    assert [each for each in stored if CANARY.encode() in each.read_bytes()] == []


def test_a_rejected_token_is_reported(host: ModelHost, path: Path) -> None:
    host.respond_with(status(403))

    with new_client(LOOPBACK) as client:
        message = DownloadHarness(client, path).download_error(host.url).message

    assert message.endswith("403 Forbidden: the token in spec.model.tokenSecretRef is not accepted")


def _argv(folder: Path, token: Path, log: Path, url: str) -> list[str]:
    to = folder / "models" / "model.gguf"
    return [
        *("--token-file", str(token), "--token-hosts-file", str(folder / "hosts")),
        *("--model", url, "--to", str(to)),
        *("--tries", "1", "--termination-log", str(log)),
    ]
