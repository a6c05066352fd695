"""Plans of GPUs are near what a real llama-server allocates on each, and in main memory.

allocated-vulkan-b11434.jsonl has what build 11434 logs with the Vulkan backend, and Mesa's llvmpipe
as its GPUs. `python tests/support/llama_devices.py` writes it.

The log is no reference for the weights in main memory: it has the part of the file that is mapped,
with the tensors between them. They are all that is not on GPUs, whose weights are compared.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from documents import DOCS, table
from llama_devices import (
    HOST,
    LLAMA_SERVER,
    NOT_MEASURED,
    Allocation,
    load_of,
    load_table,
    measure,
    measurements,
    path_of,
    settings_of,
    short,
)
from planned_model import write
from planned_models import MODELS
from slotkeeper.llamacpp.argv import ALL_LAYERS
from slotkeeper.llamacpp.memory.dimensions import Dimensions
from slotkeeper.llamacpp.memory.plan import Parts, Usage, plan
from slotkeeper.llamacpp.memory.read import read_dimensions, read_header

TABLE = load_table(Path(__file__).with_name("allocated-vulkan-b11434.jsonl"))

MEASURED = sorted(MODELS.keys() - NOT_MEASURED)

MIB = 1024**2
SLACK = 2
"""MiB: a smaller error is none, because the buffers of these short models are small."""

Bounds = Mapping[str, tuple[float, float]]
"""How much smaller and larger than what is allocated a plan may be, as a proportion of it: by kind
of all GPUs, and of main memory without weights."""

EXACT = (-0.01, 0.01)

PLACED: Bounds = {
    "weights": EXACT,
    "kv_cache": EXACT,
    "compute": (-0.08, 0.16),
    "all": (-0.05, 0.07),
    HOST: (-0.15, 0.0),
}

COPIED: Bounds = {**PLACED, "compute": (-0.25, 0.35), "all": (-0.14, 0.15), HOST: (-0.3, 0.0)}
"""A GPU computes what is in main memory. How much space of one copy the next can use depends on
their order."""

BOUNDS: Mapping[str, Bounds] = {
    "one GPU": PLACED,
    "two GPUs, `splitMode: layer`": PLACED,
    # It passes more vectors from layer to layer.
    "… RWKV-7": {**PLACED, "compute": (-0.35, 0.0), "all": (-0.2, 0.0)},
    "two GPUs, `splitMode: none`": PLACED,
    # Some tensors are whole on each GPU, and so are single heads of a cache.
    "two GPUs, `splitMode: tensor`": {
        **PLACED,
        "weights": (-0.1, 0.1),
        "kv_cache": (-0.35, 0.5),
        "all": (-0.09, 0.05),
    },
    "some layers in main memory": COPIED,
    # Some of their operations remain on the CPU.
    "… recurrent layers": {**COPIED, "compute": (-0.1, 0.45), HOST: (-0.8, 0.0)},
    # The GPU has nothing but the compute buffer.
    "no layers on the GPU": {
        **COPIED,
        "compute": (-0.15, 0.8),
        "all": (-0.15, 0.8),
        HOST: (-0.4, 0.0),
    },
    "some experts in main memory": COPIED,
    # The backend reorders the operations of a batch, so that more of them are computed at once.
    "Vulkan's own order": {**PLACED, "compute": (-0.4, 0.16), "all": (-0.2, 0.07)},
}
"""By placement."""

KINDS = ("weights", "kv_cache", "compute", "all", HOST)


@cache
def dimensions(model: str) -> Dimensions:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(short(MODELS[model]()), path, vocabulary=False)
        with path.open("rb") as file:
            return read_dimensions([read_header(file)])


def placement(row: Allocation) -> str:
    """Return its name in the documentation."""
    setting = row.setting
    if setting.reordered:
        return "Vulkan's own order"
    if setting.layers != ALL_LAYERS:
        return _in_main_memory(row)
    if setting.cpu_moe_layers is not None:
        return "some experts in main memory"
    if setting.gpus == 1:
        return "one GPU"
    passes_more = row.model == "rwkv7" and setting.split_mode == "layer"
    return "… RWKV-7" if passes_more else f"two GPUs, `splitMode: {setting.split_mode}`"


def _in_main_memory(row: Allocation) -> str:
    if row.setting.layers == 0:
        return "no layers on the GPU"
    recurrent = any(layer.state for layer in dimensions(row.model).layers)
    return "… recurrent layers" if recurrent else "some layers in main memory"


def errors(row: Allocation) -> dict[str, list[float]]:
    """Return the errors of the planned sizes, as proportions of what was allocated."""
    planned = plan(Parts(dimensions(row.model)), load_of(row.model, row.setting))
    gpus = list(planned.gpus)
    if row.setting.main:
        # The plan has the chosen GPU as the first one.
        gpus.insert(row.setting.main, gpus.pop(0))
    found = defaultdict(list)
    for place, allocated in row.allocated.items():
        if place == HOST:
            found[HOST].append(_error(planned.host, allocated, "kv_cache", "compute", "output"))
            continue
        usage = gpus[int(place.removeprefix("GPU "))]
        for kind in ("weights", "kv_cache", "compute"):
            found[kind].append(_error(usage, allocated, kind))
        found["all"].append(_error(usage, allocated, *allocated))
    return found


def _error(usage: Usage, allocated: Mapping[str, float], *kinds: str) -> float:
    size = sum(allocated[kind] for kind in kinds)
    difference = sum(getattr(usage, kind) for kind in kinds) / MIB - size
    return difference / size if abs(difference) > SLACK else 0.0


def wrong(row: Allocation) -> dict[str, list[float]]:
    """Return the errors that break a bound."""
    bounds = BOUNDS[placement(row)]
    return {
        kind: found
        for kind, found in errors(row).items()
        if min(found) < bounds[kind][0] or max(found) > bounds[kind][1]
    }


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_plan_of_gpus_is_near_what_was_allocated(row: Allocation) -> None:
    assert wrong(row) == {}


@pytest.mark.parametrize("model", MEASURED)
def test_each_setting_of_a_model_has_a_row(model: str) -> None:
    rows = {row.setting for row in TABLE if row.model == model}

    assert rows == set(settings_of(short(MODELS[model]())))


def test_no_operation_of_a_model_on_one_gpu_was_left_to_the_cpu() -> None:
    # The first part of a batch is the table of tokens in main memory.
    assert {row.splits for row in TABLE if placement(row) == "one GPU"} == {2}


def test_the_errors_of_each_placement_are_documented() -> None:
    header = ("placement", "weights", "KV cache and states", "compute", "all", "main memory")
    rows = table((DOCS / "concepts/memory.md").read_text(), *header)
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in BOUNDS}
    for row in TABLE:
        for kind, of_row in errors(row).items():
            found[placement(row)][kind] += of_row

    assert {row[0]: row[1:] for row in rows} == {
        name: [_range(of_placement[kind]) for kind in KINDS] for name, of_placement in found.items()
    }


def _range(found: list[float]) -> str:
    lowest, highest = (f"{100 * error + 0.0:.1f}" for error in (min(found), max(found)))
    return lowest if lowest == highest else f"{lowest} to {highest}"


@pytest.mark.long
@pytest.mark.skipif(not LLAMA_SERVER, reason="there is no llama-server with GPUs")
@pytest.mark.parametrize("model", MEASURED)
def test_this_llama_server_allocates_on_gpus_what_is_planned(model: str, tmp_path: Path) -> None:
    for name, setting in measurements():
        if name == model:
            row = measure(path_of(model, tmp_path), model, setting)
            assert wrong(row) == {}, row
