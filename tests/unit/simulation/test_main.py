"""`slotkeeper what-if` and `slotkeeper trace`, run as commands."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from slotkeeper.__main__ import main

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/what-if.md"

SERVER = """
kind: LlamaServer
metadata:
  name: chat
spec:
  model:
    url: https://models.example.com/model.gguf
  slots: 4
  autoscaling:
    maxReplicas: 20
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(SERVER)
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("at,seconds\n" + "".join(f"{at},30\n" for at in range(100)))
    return path


def what_if(*arguments: object) -> int:
    return main(["what-if", *map(str, arguments)])


def test_the_table_has_a_line_for_each_policy(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what_if("--trace", trace, "--policy", policy, "--compare", "gpu,average=0.5") == 0

    summary, _, heading, *rows = capsys.readouterr().out.splitlines()
    assert summary.startswith("100 requests in 0:01:39, mean service time 30.0 s; 4 slots per ")
    assert heading.split()[:4] == ["policy", "p50", "p95", "p99"]
    assert [row.split()[0] for row in rows] == ["chat", "gpu=0.8", "average=0.5"]


def test_the_document_shows_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"```console\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert shown
    commands = re.findall(r"^\$ slotkeeper (\w+(?:-\w+)? [^#>\n]+)", shown[1], re.MULTILINE)
    [trace_command, what_if_command] = map(shlex.split, commands)
    _, _, table = shown[1].partition("\n\n")
    (tmp_path / "chat.yaml").write_text(SERVER.replace("maxReplicas: 20", "maxReplicas: 8"))

    assert main(trace_command) == 0
    (tmp_path / "monday.csv").write_text(capsys.readouterr().out)
    arguments = [str(tmp_path / word) if "." in word else word for word in what_if_command]
    assert main(arguments) == 0

    summary, _, printed = capsys.readouterr().out.partition("\n\n")
    assert summary.split(". ")[0] in shown[1]
    assert printed == table


def test_each_change_is_printed_with_its_reason(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what_if("--trace", trace, "--policy", policy, "--events") == 0

    first = capsys.readouterr().out.partition("chat:\n")[2].splitlines()[0]
    assert first == "0:00:04  busy 4/4, queued 1, oldest 0.0 s: 1 -> 2"


def test_results_are_printed_as_json(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what_if("--trace", trace, "--policy", policy, "--json", "--load-seconds", 1) == 0

    chat = json.loads(capsys.readouterr().out)["chat"]
    assert chat["withinOneSecond"] > 0.6
    assert chat["replicas"][0] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "while parsing a flow node"),
        ("[]", "must be the manifest of one LlamaServer"),
        ("kind: Deployment", "must be the manifest of one LlamaServer"),
        (SERVER.replace("slots: 4", "slots: 0"), "spec.slots: Input should be greater than"),
        (SERVER.partition("  autoscaling")[0], "spec.autoscaling is not set: set it to"),
    ],
)
def test_an_invalid_policy_is_rejected(
    text: str, message: str, trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(text)

    assert what_if("--trace", trace, "--policy", policy) == 2
    assert capsys.readouterr().err.startswith(f"slotkeeper what-if: {policy}: {message}")


def test_an_invalid_trace_is_rejected(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_text("at,seconds\n1,2\nx,y\n")

    assert what_if("--trace", trace, "--policy", policy) == 2
    assert f"{trace}: line 3: must be two numbers, not 'x,y'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "--compare",
            "gpu,cpu",
            "unknown policy 'cpu': must be one of gpu, processing, queue, average",
        ),
        ("--compare", "gpu=0", "must be a number greater than 0, not 0"),
        ("--load-seconds", "-1", "must be a number greater than 0, not -1"),
        ("--load-seconds", "soon", "must be a number greater than 0, not soon"),
        ("--begin", "today", "must be an ISO 8601 time, not 'today'"),
    ],
)
def test_invalid_options_are_rejected(
    option: str,
    value: str,
    message: str,
    trace: Path,
    policy: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        what_if("--trace", trace, "--policy", policy, f"{option}={value}")

    assert message in capsys.readouterr().err


def test_a_plot_is_written_with_matplotlib(trace: Path, policy: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    assert what_if("--trace", trace, "--policy", policy, "--plot", tmp_path / "plot.png") == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_generated_trace_is_simulated(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "sessions", "--seed", "7"]) == 0
    generated = tmp_path / "generated.csv"
    generated.write_text(capsys.readouterr().out)

    assert what_if("--trace", generated, "--policy", policy) == 0


def test_an_access_log_is_converted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"time": 9.0, "replica": "10.0.0.1:8080", "queue_seconds": 1.0, "duration_seconds": 3.5}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(line)))

    assert main(["trace", "record"]) == 0
    assert capsys.readouterr().out == "at,seconds\n0.0,2.5\n"


def test_an_invalid_access_log_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))

    assert main(["trace", "record"]) == 2
    assert "line 1: not a balancer's access log entry" in capsys.readouterr().err


def test_a_reader_may_close_the_output_early() -> None:
    command = f"{shlex.quote(sys.executable)} -m slotkeeper trace burst | head -n 1"

    completed = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)

    assert (completed.stdout, completed.stderr) == ("at,seconds\n", "")
