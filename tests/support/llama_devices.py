"""What a real llama-server allocates on GPUs and in main memory, from its log.

`PYTHONPATH=operator:e2e python tests/support/llama_devices.py > TABLE` measures all models again,
in a quarter of an hour, with the command in SLOTKEEPER_LLAMA_SERVER_GPU. It must find two devices,
Vulkan0 and Vulkan1, and the folder of temporary files. Mesa's llvmpipe is enough.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_memory import KINDS, log_of
from planned_model import PlannedModel, write
from planned_models import MODELS
from slotkeeper.llamacpp.argv import ALL_LAYERS, Embeddings, Gpus, Serving, argv
from slotkeeper.llamacpp.memory import load as planner

LLAMA_SERVER = shlex.split(os.environ.get("SLOTKEEPER_LLAMA_SERVER_GPU") or "")
"""The command of llama-server; empty if there is none."""

VOCABULARY = 32_768
"""Tokens, at most: llvmpipe can address no tensor above 128 MiB."""

LAYERS = 6
"""At most, to measure in minutes."""

NOT_BY_TENSOR = frozenset({"falcon-h1", "granitehybrid", "rwkv7"})
"""Architectures that llama.cpp does not split by tensor: the last one ends it by an assertion."""

TOO_LARGE = frozenset({"gpt_oss", "mixtral", "qwen3next"})
"""Models with other tensors above that."""

PARTLY_ON_CPU = frozenset({"deepseek2", "jamba", "mamba"})
"""Models with operations that the Vulkan backend leaves to the CPU: the scan of Mamba's
first version, and on llvmpipe a multiplication of latent attention."""

NOT_MEASURED = TOO_LARGE | PARTLY_ON_CPU

HOST = "main memory"

_BUFFER = re.compile(r"(\S+) +(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_SPLITS = re.compile(r"splits = (\d+)")
_DEVICE = re.compile(r"[A-Za-z]+(\d+)")


@dataclass(frozen=True)
class Setting:
    """How a model is loaded on GPUs."""

    slots: int
    context: int
    """Tokens of a slot."""
    kv_cache_type: str = "f16"
    flash_attention: str = "auto"
    gpus: int = 1
    layers: int = ALL_LAYERS
    cpu_moe_layers: int | None = None
    split_mode: str = "layer"
    main: int | None = None
    shares: tuple[float, ...] = ()
    reordered: bool = False
    """Whether the Vulkan backend orders the operations of a batch anew, as it does by default."""


@dataclass(frozen=True)
class Allocation:
    """A row of the table: what was allocated, in MiB."""

    model: str
    setting: Setting
    allocated: Mapping[str, Mapping[str, float]]
    """By `GPU 0` or so, and main memory; each of weights, kv_cache, compute and output."""
    splits: int
    """Number of parts of a batch, which are each computed on one GPU, or the CPU."""

    @property
    def name(self) -> str:
        """Of the row, in tests."""
        changed = [f"{key}={value}" for key, value in _changed(self.setting).items()]
        return "-".join([self.model, *changed])


def measure(path: Path, model: str, setting: Setting) -> Allocation:
    """Start llama-server with a model, and return what it allocates before it serves."""
    gpus = Gpus(
        setting.layers, setting.cpu_moe_layers, setting.split_mode, setting.main, setting.shares
    )
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
        gpus=gpus,
        embeddings=Embeddings() if model == "nomic_bert" else None,
        extra=(
            *("--device", ",".join(f"Vulkan{gpu}" for gpu in range(setting.gpus))),
            *("--verbosity", "4", "--no-warmup", "--no-repack"),
        ),
    )
    logged = 1 if setting.split_mode == "tensor" else setting.gpus
    names = [*(f"GPU {gpu}" for gpu in range(logged)), HOST]
    sizes = {name: dict.fromkeys(KINDS.values(), 0.0) for name in names}
    splits = 0
    in_order = {} if setting.reordered else {"GGML_VK_DISABLE_GRAPH_OPTIMIZE": "1"}
    for line in log_of([*LLAMA_SERVER, *argv(serving)], in_order):
        if found := _BUFFER.search(line):
            sizes[_place(found[1])][KINDS[found[2]]] += float(found[3])
        if found := _SPLITS.search(line):
            splits = int(found[1])
    rounded = {
        name: {kind: round(size, 2) for kind, size in of_place.items()}
        for name, of_place in sizes.items()
    }
    return Allocation(model, setting, rounded, splits)


def _place(buffer: str) -> str:
    if buffer == "Meta()":
        # The size is that of the GPU with the most; it is the first one in all settings.
        return "GPU 0"
    device = _DEVICE.fullmatch(buffer)
    return f"GPU {device[1]}" if device else HOST


def short(model: PlannedModel) -> PlannedModel:
    """Return the model with fewer layers and words: a layer is placed as any other of its kind."""
    words = min(model.vocabulary, VOCABULARY)
    every = _number(model, "block_count")
    # Of these, the last layers differ from others.
    whole = model.numbers.keys() & {"nextn_predict_layers", "attention.shared_kv_layers"}
    layers = every if whole else min(every, LAYERS)
    numbers = {
        key: value[:layers] if isinstance(value, list) and len(value) == every else value
        for key, value in model.numbers.items()
    }
    tensors = [
        (name, tuple(words if size == model.vocabulary else size for size in shape), kind)
        for name, shape, kind in model.tensors
        if not name.startswith("blk.") or int(name.split(".")[1]) < layers
    ]
    return replace(
        model, vocabulary=words, numbers={**numbers, "block_count": layers}, tensors=tensors
    )


def _number(model: PlannedModel, key: str) -> int:
    number = model.numbers[key]
    assert isinstance(number, int)
    return number


def settings_of(model: PlannedModel) -> Iterator[Setting]:
    """Yield the settings with which a model is measured."""
    layers = _number(model, "block_count")
    half = layers // 2
    if model.architecture == "nomic-bert":
        yield Setting(4, 2048)
        yield Setting(4, 1024, flash_attention="off")
        yield Setting(2, 512, layers=half)
        yield Setting(2, 2048, gpus=2)
        yield Setting(4, 2048, reordered=True)
        return
    yield from _on_one(model, half)
    # Otherwise, the second GPU would have but the last layer, which computes few tokens.
    if layers >= LAYERS:
        yield Setting(4, 2048, gpus=2)
        yield Setting(2, 1024, flash_attention="off", gpus=2, shares=(1, 2))
        yield Setting(4, 2048, "q8_0", gpus=2, layers=layers)
        yield Setting(4, 2048, gpus=2, reordered=True)
        yield Setting(2, 1024, flash_attention="off", gpus=2, shares=(1, 2), reordered=True)
        if _has_experts(model):
            yield Setting(4, 2048, gpus=2, cpu_moe_layers=half)
    if model.architecture not in NOT_BY_TENSOR:
        yield Setting(2, 2048, gpus=2, split_mode="tensor")
        yield Setting(2, 2048, gpus=2, split_mode="tensor", shares=(3, 1))
    yield Setting(2, 2048, gpus=2, split_mode="none", main=1)


def _on_one(model: PlannedModel, half: int) -> Iterator[Setting]:
    # Of more heads, the logits of so many tokens are too large for llvmpipe.
    context = 1024 if _number(model, "attention.head_count") <= 64 else 512
    yield Setting(4, 4096)
    yield Setting(1, 8192, "q8_0")
    yield Setting(16, 512)
    yield Setting(4, context, flash_attention="off")
    yield Setting(4, 4096, reordered=True)
    yield Setting(4, context, flash_attention="off", reordered=True)
    yield Setting(4, 2048, layers=0)
    yield Setting(4, 2048, layers=half)
    yield Setting(2, context, flash_attention="off", layers=half)
    # The KV cache of Phi-3 would have three gigabytes.
    if model.architecture != "phi3":
        yield Setting(4, 8192, layers=half)
    if _has_experts(model):
        yield Setting(4, 2048, cpu_moe_layers=half)
        yield Setting(4, 2048, cpu_moe_layers=ALL_LAYERS)


def _has_experts(model: PlannedModel) -> bool:
    return any("_exps." in name for name, _, _ in model.tensors)


def load_of(model: str, setting: Setting) -> planner.Load:
    """Return the planner's description of how llama-server is started to measure."""
    gpus = planner.Gpus(
        (2**40,) * setting.gpus,
        setting.layers,
        setting.split_mode,
        setting.shares,
        setting.cpu_moe_layers or 0,
    )
    load = planner.Load(
        setting.slots,
        setting.context,
        setting.kv_cache_type,
        setting.flash_attention != "off",
        gpus=gpus,
    )
    if model != "nomic_bert":
        return load
    return replace(load, batch=setting.context, micro_batch=setting.context, embeddings=True)


def measurements() -> Iterator[tuple[str, Setting]]:
    """Yield the models and settings that are measured."""
    for name, builder in MODELS.items():
        if name not in NOT_MEASURED:
            for setting in settings_of(short(builder())):
                yield name, setting


def path_of(model: str, folder: Path) -> Path:
    """Return the file of a model, written to the folder."""
    path = folder / f"{model}.gguf"
    if not path.exists():
        write(short(MODELS[model]()), path)
    return path


def written(row: Allocation) -> str:
    """Return the row as JSON, without the settings that are as by default."""
    return json.dumps({**vars(row), "setting": _changed(row.setting)})


def _changed(setting: Setting) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(Setting)}
    return {name: value for name, value in vars(setting).items() if value != defaults[name]}


def load_table(path: Path) -> list[Allocation]:
    """Return the rows of a table."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return [
        Allocation(
            row["model"],
            Setting(**{**row["setting"], "shares": tuple(row["setting"].get("shares", ()))}),
            row["allocated"],
            row["splits"],
        )
        for row in rows
    ]


def _main() -> None:
    with TemporaryDirectory() as folder:
        for model, setting in measurements():
            row = measure(path_of(model, Path(folder)), model, setting)
            print(written(row), flush=True)


if __name__ == "__main__":
    if not LLAMA_SERVER:
        sys.exit("SLOTKEEPER_LLAMA_SERVER_GPU has no command of llama-server")
    _main()
