"""Run the download benchmark: `make bench-download`, from the root of the repository."""

import argparse
import json
import os
import platform
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from bench.findings import Findings, Gate, Table, at_least, at_most, digits
from bench.report import as_json, markdown
from slotkeeper.llamacpp.gguf_layout import DEFAULT_ALIGNMENT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"
OPERATOR = ROOT / "operator"
TITLE = "Download benchmark"
CURL, SLOTKEEPER = "curl", "slotkeeper download"
VERIFIED_CURL, HASHED_CURL = "curl, then sha256sum", "curl, with tee to sha256sum"
LIMIT_BYTES = 50 * 1024**2
"""Per second and connection, of the limited host."""

MIB = 1024**2
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; sendfile on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/served;
    location /limited/ {{ alias {folder}/served/; limit_rate {limit}; }}
  }}
}}
"""


def main(argv: Sequence[str]) -> int:
    """Download with each system and report; return 0 whether or not the gates are met."""
    arguments = _parser().parse_args(argv)
    began = time.monotonic()
    size = (64 if arguments.quick else arguments.size) * MIB
    limited = size // 8
    rounds = 1 if arguments.quick else arguments.rounds
    program = ("env", f"PYTHONPATH={OPERATOR}", arguments.python, "-m", "slotkeeper")
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        _server(Path(name), size) as url,
    ):
        findings = [
            _compare("fast", f"{url}/model.gguf", Path(name), size, rounds, program),
            _compare("limited", f"{url}/limited/small.gguf", Path(name), limited, rounds, program),
        ]
    about = {
        "command": " ".join(["python -m bench.download", *argv]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f} at the end, of this run and other programs",
        "commit": _output("git", "describe", "--always", "--dirty"),
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, findings, about)
    (RESULTS / "download.md").write_text(text)
    (RESULTS / "download.json").write_text(json.dumps(as_json(findings, about), indent=1))
    print(text)
    return 0


def _compare(
    name: str, url: str, folder: Path, size: int, rounds: int, program: Sequence[str]
) -> Findings:
    """Measure all systems, one after the other in each round."""
    target = folder / "target.gguf"
    download = (*program, "download", "--log-level", "WARNING")
    curl = ("curl", "--silent", "--fail", "--output", str(target), url)
    commands: dict[str, Sequence[Sequence[str]]] = {
        CURL: [curl],
        VERIFIED_CURL: [curl, ("sha256sum", str(target))],
        HASHED_CURL: [
            ("sh", "-c", 'curl --silent --fail "$0" | tee "$1" | sha256sum', url, str(target))
        ],
        SLOTKEEPER: [(*download, "--model", url, "--to", str(target))],
    }
    samples: dict[str, list[tuple[float, float, float]]] = {system: [] for system in commands}
    for _ in range(rounds):
        for system, steps in commands.items():
            samples[system].append(_measure(steps))
            for file in folder.glob("target.gguf*"):
                file.unlink()
    seconds = {system: median(each[0] for each in values) for system, values in samples.items()}
    rows = [
        (
            system,
            f"{size / seconds[system] / 1e6:.0f} MB/s",
            digits(seconds[CURL] / seconds[system]),
            f"{median(each[1] for each in values) / size * 1e9:.2f} s",
            f"{max(each[2] for each in values):.0f} MB",
        )
        for system, values in samples.items()
    ]
    columns = ("system", "speed", "x curl", "CPU per GB", "memory")
    title = {
        "fast": "Host without a limit, on loopback",
        "limited": f"Host that limits each connection to {LIMIT_BYTES // MIB} MiB/s",
    }[name]
    note = (
        f"Medians of {rounds} rounds, each with all systems, of {size // MIB} MiB, from the start "
        "of the process to its end. slotkeeper verifies the SHA-256 and syncs the file to the "
        "disk; curl does neither. CPU is that of all processes, without the host. Memory is the "
        "maximum of one process, at least that of the benchmark itself."
    )
    return Findings(
        name, [Table(title, columns, rows, note)], _gates(name, seconds, samples), raw=samples
    )


def _gates(
    name: str, seconds: dict[str, float], samples: dict[str, list[tuple[float, float, float]]]
) -> list[Gate]:
    ratio = seconds[CURL] / seconds[SLOTKEEPER]
    bound = {"fast": 0.9, "limited": 2.0}[name]
    memory = max(each[2] for each in samples[SLOTKEEPER])
    return [
        at_least(f"{name}: speed, x curl", ratio, bound),
        at_most(f"{name}: memory", memory, 64, "MB"),
    ]


def _measure(steps: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """Run commands; return their seconds, CPU seconds and maximum memory in MB."""
    start = time.monotonic()
    cpu, memory = 0.0, 0.0
    for step in steps:
        process = subprocess.Popen(step, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{step[0]} failed with status {process.returncode}")
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss * 1024 / 1e6)
    return time.monotonic() - start, cpu, memory


@contextmanager
def _server(folder: Path, size: int) -> Iterator[str]:
    """Serve a model with nginx; yields its URL without the path."""
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if not nginx or not shutil.which("curl"):
        raise SystemExit("missing: nginx or curl")
    port = random.randrange(20_000, 30_000)
    (folder / "served").mkdir()
    write_model(folder / "served/model.gguf", size)
    write_model(folder / "served/small.gguf", size // 8)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, limit=LIMIT_BYTES))
    folder.chmod(0o755)
    command = (nginx, "-c", str(config), "-e", str(folder / "error.log"))
    with subprocess.Popen(command) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            transport = httpx.HTTPTransport(retries=8)
            with httpx.Client(transport=transport, trust_env=False) as client:
                client.head(f"{url}/model.gguf").raise_for_status()
            yield url
        finally:
            process.terminate()


def write_model(path: Path, size: int) -> None:
    """Write a GGUF file with one tensor of this size, with random content."""
    name = b"weights"
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, size // 4, 0, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor
    with path.open("wb") as file:
        file.write(header + bytes(-len(header) % DEFAULT_ALIGNMENT))
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.download", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smoke test: 64 MiB, one round")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=2048, help="in MiB; default: %(default)s")
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="the interpreter that runs slotkeeper (default: this one, which has more packages "
        "than the image, and starts slower)",
    )
    parser.add_argument(
        "--folder", type=Path, help="where the files are written (default: that of temporary files)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
