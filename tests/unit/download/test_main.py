import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from model_host import GGUF, SHA256, ModelHost, content, redirect, status
from slotkeeper.download.main import main


@pytest.fixture
def termination_log(tmp_path: Path) -> Path:
    log = tmp_path / "termination-log"
    log.touch()  # created by the kubelet
    return log


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    before = logging.getLogger("slotkeeper").level
    yield
    logging.getLogger("slotkeeper").setLevel(before)


def test_a_model_in_place_is_exit_0(
    host: ModelHost, path: Path, termination_log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host.respond_with(content())

    code = main(_argv(host.url, path, termination_log, "--sha256", SHA256.upper()))

    assert code == 0
    assert path.read_bytes() == GGUF
    assert json.loads(termination_log.read_text()) == {
        "sizeBytes": len(GGUF),
        "sha256": SHA256,
        "receivedBytes": len(GGUF),
    }
    assert f"{len(GGUF)} bytes in " in caplog.text
    assert SHA256 in caplog.text


def test_a_permanent_error_is_exit_1_and_one_line_of_json(
    host: ModelHost, path: Path, termination_log: Path
) -> None:
    termination_log.write_text("an older and longer message " * 20)
    host.respond_with(status(404))

    code = main(_argv(host.url, path, termination_log))

    assert code == 1
    assert termination_log.read_text().count("\n") == 1
    assert json.loads(termination_log.read_text()) == {
        "reason": "ModelNotFound",
        "message": f"GET {host.url} returned 404 Not Found",
    }


def test_a_transient_error_is_exit_75(host: ModelHost, path: Path, termination_log: Path) -> None:
    host.respond_with(status(503))

    code = main(_argv(host.url, path, termination_log, "--tries", "1"))

    assert code == 75
    assert json.loads(termination_log.read_text())["reason"] == "ModelServerError"


@pytest.mark.parametrize(
    "invalid",
    [
        ["--sha256", "abc"],
        ["--sha256", "g" * 64],
        ["--tries", "many"],
        ["--unknown"],
    ],
)
def test_an_invalid_command_line_is_exit_2(path: Path, invalid: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--model", "http://127.0.0.1/", "--to", str(path), *invalid])

    assert caught.value.code == 2


def test_sigterm_is_exit_143(host: ModelHost, path: Path, termination_log: Path) -> None:
    def stopped_in_the_middle(request: BaseHTTPRequestHandler) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        content(cut=99)(request)

    host.respond_with(stopped_in_the_middle)
    handler = signal.getsignal(signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        main(_argv(host.url, path, termination_log))

    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not path.exists()


def test_a_missing_termination_log_changes_nothing(host: ModelHost, path: Path) -> None:
    host.respond_with(status(404))

    code = main(_argv(host.url, path, path.parent / "no-such-file"))

    assert code == 1
    assert not (path.parent / "no-such-file").exists()


def test_no_credential_in_a_url_is_logged_or_stored(
    host: ModelHost, path: Path, termination_log: Path
) -> None:
    secret = host.url.replace("//", "//user:CANARY@") + "?token=CANARY#CANARY"

    host.respond_with(redirect("/there?token=CANARY"), content(cut=99))
    interrupted = _run(secret, path, termination_log, "--tries", "1")
    host.respond_with(redirect("/?CANARY"), status(403))
    rejected = _run(secret, path, termination_log)
    host.respond_with(content())
    done = _run(secret, path, termination_log)

    logged = [interrupted, rejected, done]
    stored = [file.read_text(errors="replace") for file in path.parent.iterdir()]
    assert "was interrupted after 99" in interrupted
    assert "403" in rejected
    assert "in place: http://127.0.0.1" in done
    assert [text for text in logged + stored if "CANARY" in text] == []


def test_the_help_explains_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    text = capsys.readouterr().out
    assert all(f"\n  {code} " in text for code in (0, 1, 2, 75, 143))


def test_the_progress_has_no_credential(
    path: Path, termination_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub may return one as the name of a file."""
    reports: list[Mapping[str, object]] = []

    @contextmanager
    def serve(_port: int, report: Callable[[], Mapping[str, object]], *_: object) -> Iterator[None]:
        try:
            yield
        finally:
            reports.append(report())

    monkeypatch.setattr("slotkeeper.download.main.serve_progress", serve)
    (tmp_path / "token").write_text("PLANTED/token+1")
    (tmp_path / "hosts").write_text("127.0.0.1")
    secrets = ("--token-file", f"{tmp_path}/token", "--token-hosts-file", f"{tmp_path}/hosts")
    url = "http://127.0.0.1:9/PLANTED%2Ftoken%2B1-Q4_K_M.gguf"

    main(_argv(url, path, termination_log, *secrets, "--progress-port", "9"))

    assert [report["file"] for report in reports] == ["[redacted]-Q4_K_M.gguf"]


def _argv(url: str, path: Path, termination_log: Path, *more: str) -> list[str]:
    return ["--model", url, "--to", str(path), "--termination-log", str(termination_log), *more]


def _run(url: str, path: Path, termination_log: Path, *more: str) -> str:
    """Run the command as a process; return its output and its termination log."""
    argv = _argv(url, path, termination_log, *more)
    process = subprocess.run(
        [sys.executable, "-m", "slotkeeper", "download", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return process.stdout + termination_log.read_text()
