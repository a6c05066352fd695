"""`kubectl get llama -w` shows the progress of a download, then Loading, then the model's name."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from servers import SLOW, Server, spec

THROTTLED = SLOW.replace("/tiny", "/throttled/tiny")
"""39 MB at 300 kB/s for each of four connections: half a minute."""

PROGRESS = re.compile(r"(\d+)%( \w+)?")


def test_a_download_is_shown_until_the_model_is_served(server: Server) -> None:
    with _watched(server) as lines:
        server.ready(spec(THROTTLED))
    print("\n".join(lines))
    models = _models(lines)

    shares = [int(found[1]) for each in models if (found := PROGRESS.fullmatch(each))]
    assert len(set(shares)) >= 3
    assert all(before <= after for before, after in pairwise(shares))
    last = max(index for index, each in enumerate(models) if PROGRESS.fullmatch(each))
    assert [each for each in dict.fromkeys(models[last + 1 :]) if each != "Verifying"] == [
        "Loading",
        "tiny.gguf",
    ]
    assert "secondsLeft" not in server.get()["status"]["model"]
    assert _events(server, "DownloadStarted") == [
        "downloading tiny.gguf from models.slotkeeper-demo.svc"
    ]
    [completed] = _events(server, "DownloadCompleted")
    assert re.fullmatch(r"tiny\.gguf: [\d.]+ MB in [\dms]+ \([\d.]+ [kM]B/s\)", completed)


@contextmanager
def _watched(server: Server) -> Iterator[list[str]]:
    """The lines that `kubectl get llama -w` prints meanwhile, complete after the block."""
    lines: list[str] = []
    watch = server.cluster.start("kubectl", "-n", server.namespace, "get", "llama", "-w")
    try:
        yield lines
        assert watch.stdout
        # The watch has delivered all earlier changes when it shows that the server is ready.
        for line in watch.stdout:
            lines.append(line.rstrip())
            if re.match(rf"{server.name} +True ", line):
                break
    finally:
        watch.terminate()
        try:
            watch.wait(10)
        except subprocess.TimeoutExpired:
            watch.kill()
        for pipe in filter(None, (watch.stdin, watch.stdout)):
            pipe.close()


def _models(lines: list[str]) -> list[str]:
    """The column MODEL of each line."""
    header, *rows = (re.split(" {2,}", line) for line in lines)
    index = header.index("MODEL")
    return [row[index] for row in rows if len(row) == len(header)]


def _events(server: Server, reason: str) -> list[str]:
    found = server.cluster.get(
        "events", f"--field-selector=reason={reason}", namespace=server.namespace
    )
    return [event["message"] for event in found["items"]]
