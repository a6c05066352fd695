"""`slotkeeper what-if` and `slotkeeper trace`, as somebody at a shell has them."""

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


def test_a_line_for_the_policy_and_each_peer(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what_if("--trace", trace, "--policy", policy, "--compare", "gpu,average=0.5") == 0

    about, _, heading, *rows = capsys.readouterr().out.splitlines()
    assert about.startswith("100 requests in 0:01:39, a slot for 30.0 s each; 4 slots a replica")
    assert heading.split()[:4] == ["policy", "p50", "p95", "p99"]
    assert [row.split()[0] for row in rows] == ["chat", "gpu=0.8", "average=0.5"]


def test_the_document_shows_what_comes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = re.search(r"```console\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert shown
    [draw, play] = re.findall(r"^\$ slotkeeper (\w+(?:-\w+)? [^#>\n]+)", shown[1], re.MULTILINE)
    _, _, table = shown[1].partition("\n\n")
    (tmp_path / "chat.yaml").write_text(SERVER.replace("maxReplicas: 20", "maxReplicas: 8"))

    assert main(shlex.split(draw)) == 0
    (tmp_path / "monday.csv").write_text(capsys.readouterr().out)
    arguments = [str(tmp_path / word) if "." in word else word for word in shlex.split(play)]
    assert main(arguments) == 0

    about, _, found = capsys.readouterr().out.partition("\n\n")
    assert about.split(". ")[0] in shown[1]
    assert found == table


def test_each_change_is_explained(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what_if("--trace", trace, "--policy", policy, "--events") == 0

    first = capsys.readouterr().out.partition("chat:\n")[2].splitlines()[0]
    assert first == "0:00:04  busy 4/4, queued 1, oldest 0.0 s: 1 -> 2"


def test_figures_come_as_json(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what_if("--trace", trace, "--policy", policy, "--json", "--load-seconds", 1) == 0

    chat = json.loads(capsys.readouterr().out)["chat"]
    assert chat["withinOneSecond"] > 0.6
    assert chat["replicas"][0] == [0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "while parsing a flow node"),
        ("[]", "must be one LlamaServer, as it is applied"),
        ("kind: Deployment", "must be one LlamaServer, as it is applied"),
        (SERVER.replace("slots: 4", "slots: 0"), "spec.slots: Input should be greater than"),
        (SERVER.partition("  autoscaling")[0], "set spec.autoscaling: without it nothing scales"),
    ],
)
def test_what_is_no_policy_is_refused(
    text: str, said: str, trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(text)

    assert what_if("--trace", trace, "--policy", policy) == 2
    assert capsys.readouterr().err.startswith(f"slotkeeper what-if: {policy}: {said}")


def test_what_is_no_trace_is_refused(
    trace: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_text("at,seconds\n1,2\nx,y\n")

    assert what_if("--trace", trace, "--policy", policy) == 2
    assert f"{trace}: line 3: 'x,y' is no pair of numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--compare", "gpu,cpu", "'cpu' is none of gpu, processing, queue, average"),
        ("--compare", "gpu=0", "0 must be more than 0"),
        ("--load-seconds", "-1", "-1 must be more than 0"),
        ("--begin", "today", "invalid _time value: 'today'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    option: str,
    value: str,
    said: str,
    trace: Path,
    policy: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        what_if("--trace", trace, "--policy", policy, f"{option}={value}")

    assert said in capsys.readouterr().err


def test_a_plot_is_drawn_where_there_is_matplotlib(
    trace: Path, policy: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")

    assert what_if("--trace", trace, "--policy", policy, "--plot", tmp_path / "plot.png") == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_trace_is_drawn_and_played(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "sessions", "--seed", "7"]) == 0
    drawn = tmp_path / "drawn.csv"
    drawn.write_text(capsys.readouterr().out)

    assert what_if("--trace", drawn, "--policy", policy) == 0


def test_a_log_is_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"time": 9.0, "replica": "10.0.0.1:8080", "queue_seconds": 1.0, "duration_seconds": 3.5}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(line)))

    assert main(["trace", "record"]) == 0
    assert capsys.readouterr().out == "at,seconds\n0.0,2.5\n"


def test_a_log_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))

    assert main(["trace", "record"]) == 2
    assert "line 1 is not of a balancer's access log" in capsys.readouterr().err


def test_whoever_reads_it_may_have_had_enough() -> None:
    command = f"{shlex.quote(sys.executable)} -m slotkeeper trace burst | head -n 1"

    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)

    assert (said.stdout, said.stderr) == ("at,seconds\n", "")
