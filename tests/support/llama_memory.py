"""What a real llama-server allocates for a model, from its log.

`python tests/support/llama_memory.py > TABLE` measures all models again, in five minutes and 2 GB
of memory. The real Gemma is measured if it was fetched.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from planned_model import write
from planned_models import MODELS
from real_model import FOLDER, NAME
from slotkeeper.llamacpp.argv import Embeddings, Serving, argv
from slotkeeper.llamacpp.memory.load import Load
from slotkeeper.llamacpp.memory.plan import Parts, Usage, plan
from slotkeeper.llamacpp.memory.read import read_dimensions, read_header

LLAMA_SERVER = shlex.split(
    os.environ.get("SLOTKEEPER_LLAMA_SERVER") or shutil.which("llama-server") or ""
)
"""The command of llama-server; empty if there is none."""

LLAMA_FIT_PARAMS = shlex.split(
    os.environ.get("SLOTKEEPER_LLAMA_FIT_PARAMS") or shutil.which("llama-fit-params") or ""
)
"""The command of llama.cpp's own planner; empty if there is none."""

_BUFFER = re.compile(r"(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")

KINDS = {
    "model": "weights",
    "KV": "kv_cache",
    "RS": "kv_cache",
    "compute": "compute",
    "output": "output",
}


@dataclass(frozen=True)
class Setting:
    """How a model is loaded."""

    slots: int
    context: int
    """Tokens of a slot."""
    kv_cache_type: str
    flash_attention: str


@dataclass(frozen=True)
class Allocation:
    """A row of the table: what was allocated, in MiB."""

    model: str
    setting: Setting
    allocated: Mapping[str, float]
    """Of weights, kv_cache, compute and output."""


SETTINGS = (
    Setting(1, 4096, "f16", "auto"),
    Setting(4, 4096, "f16", "on"),
    Setting(4, 8192, "f16", "off"),
    Setting(2, 2048, "q8_0", "on"),
    Setting(8, 1024, "f32", "off"),
    Setting(3, 6144, "q4_0", "auto"),
    Setting(16, 512, "f16", "auto"),
    Setting(64, 256, "f16", "auto"),
)

MAX_CACHE_BYTES = 2 * 1024**3
"""Settings with a larger KV cache are not measured, because llama-server fills it with zeros."""


def log_of(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a llama-server; yield the lines of its log until its memory is allocated, and end it.

    Raises RuntimeError if it ends before.
    """
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    line = ""
    try:
        for line in process.stdout or ():
            yield line
            if "reserve took" in line:
                return
        raise RuntimeError(f"llama-server did not load its model: {shlex.join(command)}: {line}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def measure(path: Path, model: str, setting: Setting) -> Allocation:
    """Start llama-server with a model, and return what it allocates before it serves."""
    embeddings = Embeddings() if model == "nomic_bert" else None
    serving = Serving(
        model_path=str(path),
        alias=model,
        slots=setting.slots,
        context_per_slot=setting.context,
        cache_ram_mib=0,
        port=0,
        host="127.0.0.1",
        kv_cache_type=setting.kv_cache_type,
        flash_attention=setting.flash_attention,  # type: ignore[arg-type]
        embeddings=embeddings,
        # Repacked weights are a copy, which takes time.
        extra=("--verbosity", "4", "--no-warmup", "--no-repack"),
    )
    sizes = dict.fromkeys(KINDS.values(), 0.0)
    for line in log_of([*LLAMA_SERVER, *argv(serving)]):
        if found := _BUFFER.search(line):
            sizes[KINDS[found[1]]] += float(found[2])
    return Allocation(model, setting, {kind: round(size, 2) for kind, size in sizes.items()})


def fit_params(path: Path, slots: int, context: int, flash_attention: str) -> Usage:
    """Return what llama-fit-params plans for main memory."""
    settings = ("-c", str(slots * context), "-np", str(slots), "-fa", flash_attention)
    printed = subprocess.run(
        [*LLAMA_FIT_PARAMS, "-m", str(path), *settings, "--no-repack", "--fit-print", "on"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"^Host (\d+) (\d+) (\d+)", printed, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"llama-fit-params has printed no sizes: {printed}")
    weights, kv_cache, compute = (int(size) * 1024**2 for size in found.groups())
    return Usage(weights, kv_cache, compute)


def load_of(model: str, setting: Setting) -> Load:
    """Return the planner's description of how llama-server is started to measure."""
    load = Load(
        setting.slots,
        setting.context,
        setting.kv_cache_type,
        setting.flash_attention != "off",
    )
    if model != "nomic_bert":
        return load
    return replace(load, batch=setting.context, micro_batch=setting.context, embeddings=True)


def measurements() -> Iterator[tuple[str, Setting]]:
    """Yield the models and settings that are measured."""
    for model in MODELS:
        for setting in SETTINGS:
            if model != "nomic_bert" or setting.context <= 2048:
                yield model, setting


def path_of(model: str, folder: Path) -> Path | None:
    """Return the file of a model, written to the folder; None if it is real and not fetched."""
    if model == "gemma3_270m":
        return FOLDER / NAME if (FOLDER / NAME).exists() else None
    path = folder / f"{model}.gguf"
    if not path.exists():
        write(MODELS[model](), path)
    return path


def load_table(path: Path) -> list[Allocation]:
    """Return the rows of a table."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return [Allocation(row["model"], Setting(**row["setting"]), row["allocated"]) for row in rows]


def _main() -> None:
    with TemporaryDirectory() as folder:
        for model, setting in measurements():
            path = path_of(model, Path(folder))
            if path is None:
                continue
            with path.open("rb") as file:
                dimensions = read_dimensions([read_header(file)])
            planned = plan(Parts(dimensions), load_of(model, setting))
            if planned.host.kv_cache <= MAX_CACHE_BYTES:
                row = measure(path, model, setting)
                print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    if not LLAMA_SERVER:
        sys.exit("llama-server is neither on the PATH nor in SLOTKEEPER_LLAMA_SERVER")
    _main()
