"""The script runs in a real shell; curl and sleep are replaced by scripts."""

import subprocess
from pathlib import Path

import pytest

from shell_program import program
from slotkeeper.desired.llama_container import DRAIN_SCRIPT

BUSY = '[{"id":0,"is_processing":false},{"id":1,"is_processing":true}]'
IDLE = '[{"id":0,"is_processing":false},{"id":1,"is_processing":false}]'


def drain(folder: Path, *responses: tuple[str, int]) -> list[str]:
    """Run the script with these results of curl (text, exit status); return its calls."""
    for number, (text, status) in enumerate(responses, start=1):
        (folder / f"response-{number}").write_text(f"printf '%s' '{text}'; exit {status}\n")
    (folder / "calls").touch()
    if responses:
        program(folder / "curl", 'echo curl >>calls; . "./response-$(grep -c curl calls)"')
    program(folder / "sleep", 'echo "sleep $1" >>calls')
    program(folder / "grep", 'exec /usr/bin/env -i PATH=/usr/bin:/bin grep "$@"')
    subprocess.run(
        ["/bin/sh", "-c", DRAIN_SCRIPT],
        cwd=folder,
        env={"PATH": str(folder)},
        check=False,
        timeout=10,
        stderr=subprocess.DEVNULL,
    )
    return (folder / "calls").read_text().splitlines()


def test_it_ends_once_no_slot_is_busy(tmp_path: Path) -> None:
    calls = drain(tmp_path, (BUSY, 0), (BUSY, 0), (IDLE, 0))

    assert calls == ["sleep 2", "curl", "sleep 1", "curl", "sleep 1", "curl"]


def test_a_timeout_means_a_busy_server(tmp_path: Path) -> None:
    calls = drain(tmp_path, ("", 28), (IDLE, 0))

    assert calls == ["sleep 2", "curl", "sleep 1", "curl"]


@pytest.mark.parametrize(
    "status", [pytest.param(7, id="connection refused"), pytest.param(22, id="HTTP error")]
)
def test_any_other_failure_ends_the_wait(tmp_path: Path, status: int) -> None:
    assert drain(tmp_path, ("", status)) == ["sleep 2", "curl"]


def test_without_curl_there_is_no_wait(tmp_path: Path) -> None:
    assert drain(tmp_path) == ["sleep 2"]


def test_spaces_in_the_response_make_no_difference(tmp_path: Path) -> None:
    calls = drain(tmp_path, ('[{"id": 0, "is_processing": true}]', 0), ("[]", 0))

    assert calls == ["sleep 2", "curl", "sleep 1", "curl"]
