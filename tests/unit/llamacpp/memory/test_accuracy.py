"""Plans are within 5 % of what a real llama-server allocates, for weights, KV cache, compute buffer
and all together. llama.cpp's own planner, llama-fit-params, is a second reference.

allocated-b11669.jsonl has what build 11669 logs. `python tests/support/llama_memory.py` writes it.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from documents import DOCS, codes, table
from llama_memory import (
    LLAMA_FIT_PARAMS,
    LLAMA_SERVER,
    Allocation,
    fit_params,
    load_of,
    load_table,
    measure,
    measurements,
    path_of,
)
from planned_model import write
from planned_models import MODELS
from slotkeeper.llamacpp.memory.architectures import MEASURED
from slotkeeper.llamacpp.memory.compute import embedding_bytes, input_bytes
from slotkeeper.llamacpp.memory.dimensions import Dimensions
from slotkeeper.llamacpp.memory.load import Load
from slotkeeper.llamacpp.memory.plan import Parts, plan
from slotkeeper.llamacpp.memory.read import read_dimensions, read_header

TABLE = load_table(Path(__file__).with_name("allocated-b11669.jsonl"))

MIB = 1024**2
ERROR = 0.05
SMALLEST = 0.02
"""MiB: the log has two digits."""


@cache
def dimensions(model: str) -> Dimensions:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(MODELS[model](), path, vocabulary=False)
        with path.open("rb") as file:
            return read_dimensions([read_header(file)])


def errors(row: Allocation) -> dict[str, float]:
    """Return the error of each planned size, as a proportion of what was allocated."""
    usage = plan(Parts(dimensions(row.model)), load_of(row.model, row.setting)).host
    planned = {
        "weights": usage.weights,
        "kv_cache": usage.kv_cache,
        "compute": usage.compute,
        "output": usage.output,
    }
    allocated = {kind: size * MIB for kind, size in row.allocated.items()}
    planned["all"] = sum(planned.values())
    allocated["all"] = sum(allocated.values())
    return {
        kind: (planned[kind] - size) / size if size else float(planned[kind])
        for kind, size in allocated.items()
        if max(size, planned[kind]) > SMALLEST * MIB
    }


@pytest.mark.parametrize(
    "row", TABLE, ids=lambda row: f"{row.model}-{'-'.join(map(str, vars(row.setting).values()))}"
)
def test_a_plan_is_within_five_percent_of_what_was_allocated(row: Allocation) -> None:
    found = errors(row)

    assert {kind for kind in found if abs(found[kind]) > ERROR} <= {"output"}, found


def test_each_measured_architecture_has_rows() -> None:
    assert {MODELS[row.model]().architecture for row in TABLE} == MEASURED


def test_the_errors_of_each_model_are_documented() -> None:
    header = ("model", "what is special", "weights", "KV cache and states", "compute", "all")
    rows = table((DOCS / "concepts/memory.md").read_text(), *header)
    worst: dict[str, dict[str, float]] = {}
    for row in TABLE:
        of_model = worst.setdefault(row.model, {})
        for kind, error in errors(row).items():
            of_model[kind] = max(of_model.get(kind, 0.0), abs(error))

    documented = {codes(row[0])[0]: row[2:] for row in rows}

    assert documented == {
        model: [
            f"{100 * found[kind]:.1f}" if kind in found else "-"
            for kind in ("weights", "kv_cache", "compute", "all")
        ]
        for model, found in worst.items()
    }


@pytest.mark.long
@pytest.mark.skipif(not LLAMA_FIT_PARAMS, reason="there is no llama-fit-params")
@pytest.mark.parametrize("flash_attention", ["on", "off"])
@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"nomic_bert", "gemma3_270m"}))
def test_llama_cpps_own_tool_plans_the_same_for_a_large_context(
    model: str, flash_attention: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    write(MODELS[model](), path)
    load = Load(16, 32_768, flash_attention=flash_attention == "on")

    planned = fit_params(path, load.slots, load.context_per_slot, flash_attention)

    usage = plan(Parts(dimensions(model)), load).host
    # The tool shows fewer weights of Gemma 4 than llama-server allocates, which the table has.
    if model != "gemma4":
        assert usage.weights == pytest.approx(planned.weights, rel=0.01, abs=MIB)
    assert usage.kv_cache == pytest.approx(planned.kv_cache, rel=0.01, abs=MIB)
    assert _compute_with_all_results(dimensions(model), load) == pytest.approx(
        planned.compute, rel=ERROR
    )


def _compute_with_all_results(model: Dimensions, load: Load) -> int:
    """Return the size of the compute buffer if each token has a result, as in the tool."""
    results = 5 * embedding_bytes(model, load) + 4 * model.vocabulary * load.tokens
    usage = plan(Parts(model), load).host
    return max(usage.compute, results + input_bytes(model, model.layers, load))


@pytest.mark.long
@pytest.mark.skipif(not LLAMA_SERVER, reason="there is no llama-server")
@pytest.mark.parametrize("model", MODELS)
def test_this_llama_server_allocates_what_is_planned(model: str, tmp_path: Path) -> None:
    path = path_of(model, tmp_path)
    if path is None:
        pytest.skip("the real model was not fetched")
    rows = {(row.model, row.setting) for row in TABLE}
    settings = [setting for pair, setting in measurements() if pair == model]

    for setting in settings:
        if (model, setting) in rows:
            row = measure(path, model, setting)
            assert max(map(abs, errors(row).values())) <= ERROR, (setting, errors(row))
