"""A process is identified by its id and start time, and no other process is ever killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provider.processes import Processes, ProcessIdentity, ProcessRecord, stop

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path / "processes")
    yield started
    started.stop_all()


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def ensure(processes: Processes, folder: Path, *argv: str) -> bool:
    log = folder / "logs/sleeper.log"
    return processes.ensure("sleeper", argv or SLEEP, prefix=(), log=log, environment=os.environ)


def test_a_running_process_is_not_started_again(processes: Processes, tmp_path: Path) -> None:
    assert ensure(processes, tmp_path)
    running = processes.running()

    assert not ensure(processes, tmp_path)

    assert processes.running() == running


def test_a_killed_process_is_started_again(processes: Processes, tmp_path: Path) -> None:
    ensure(processes, tmp_path)
    [killed] = processes.running().values()
    stop(killed.identity)

    assert processes.running() == {}
    assert ensure(processes, tmp_path)

    [started] = processes.running().values()
    assert started.identity != killed.identity


def test_another_command_line_replaces_the_process(processes: Processes, tmp_path: Path) -> None:
    ensure(processes, tmp_path)
    [old] = processes.running().values()

    assert ensure(processes, tmp_path, *SLEEP[:-1], "import time; time.sleep(61)")

    assert not old.alive()
    assert len(processes.running()) == 1


def test_the_output_of_a_process_is_in_its_log(processes: Processes, tmp_path: Path) -> None:
    ensure(processes, tmp_path, sys.executable, "-c", "print('a word', flush=True)")
    log = tmp_path / "logs/sleeper.log"

    deadline = time.monotonic() + 10
    while not log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert log.read_text() == "a word\n"


def test_a_reused_process_id_does_not_identify_the_process(
    processes: Processes, other_process: subprocess.Popen[bytes]
) -> None:
    identity = ProcessIdentity.of(other_process.pid)
    assert identity is not None
    processes.record(
        "sleeper", ProcessRecord(replace(identity, started=identity.started - 1), SLEEP)
    )

    assert processes.running() == {}
    processes.stop_all()

    assert other_process.poll() is None


def test_a_process_id_from_before_a_reboot_does_not_identify_the_process(
    processes: Processes, other_process: subprocess.Popen[bytes]
) -> None:
    identity = ProcessIdentity.of(other_process.pid)
    assert identity is not None
    processes.record("sleeper", ProcessRecord(replace(identity, boot="another"), SLEEP))

    stop(replace(identity, boot="another"))

    assert processes.running() == {}
    assert other_process.poll() is None


def test_a_truncated_record_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "sleeper.json").write_text('{"pid": 12')

    assert Processes(tmp_path).recorded() == {}


def test_a_zombie_counts_as_ended(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "7").mkdir(parents=True)
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("boot\n")
    fields = " ".join(str(number) for number in range(4, 53))
    stat = proc / "7/stat"

    stat.write_text(f"7 (a) name) S {fields}\n")
    assert ProcessIdentity.of(7, proc) == ProcessIdentity(7, 22, "boot")
    stat.write_text(f"7 (a) name) Z {fields}\n")
    assert ProcessIdentity.of(7, proc) is None
