"""What is planned for GPUs and main memory adds up, and never shrinks where more is asked."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planned_model import write
from planned_models import MODELS
from slotkeeper.llamacpp.kv_cache import BITS_PER_VALUE
from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer, UnplannableError
from slotkeeper.llamacpp.memory.fit import fits, most_context, most_layers, most_slots
from slotkeeper.llamacpp.memory.load import GPU_OVERHEAD, Gpus, Load
from slotkeeper.llamacpp.memory.plan import Parts, Plan, plan
from slotkeeper.llamacpp.memory.projector import Projector
from slotkeeper.llamacpp.memory.read import read_dimensions, read_header

GIB = 1024**3
ONE = Gpus((16 * GIB,))
TWO = Gpus((16 * GIB, 16 * GIB))

MODEL = Dimensions(
    architecture="llama",
    layers=(Layer(100_000, 0, 40_000, heads=4, key=64, value=64, flash_attention=900),) * 7,
    embedding=256,
    vocabulary=1000,
    trained_context=8192,
    table=150_000,
    tied=True,
    input_weights=0,
    output_weights=1024,
)
KV = 7 * 128 * 2
"""Bytes of the cache of a token."""


@cache
def real(model: str) -> Parts:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(MODELS[model](), path, vocabulary=False)
        with path.open("rb") as file:
            return Parts(read_dimensions([read_header(file)]))


def total(planned: Plan) -> int:
    return sum(usage.total for usage in planned.gpus) + planned.host.total


def test_a_gpu_has_the_layers_the_cache_and_a_copy_of_the_table() -> None:
    [gpu] = plan(Parts(MODEL), Load(2, 512, gpus=ONE)).gpus

    assert gpu.weights == 7 * 100_000 + 150_000 + 1024
    assert gpu.kv_cache == 2 * 512 * KV
    assert gpu.overhead == GPU_OVERHEAD


def test_the_table_stays_in_main_memory() -> None:
    host = plan(Parts(MODEL), Load(2, 512, gpus=ONE)).host

    assert (host.weights, host.kv_cache) == (150_000, 0)


def test_a_table_that_is_not_the_output_is_not_copied() -> None:
    model = replace(MODEL, tied=False, output_weights=90_000)

    [gpu] = plan(Parts(model), Load(2, 512, gpus=ONE)).gpus

    assert gpu.weights == 7 * 100_000 + 90_000


def test_layers_on_the_cpu_have_their_cache_there() -> None:
    planned = plan(Parts(MODEL), Load(2, 512, gpus=replace(ONE, layers=3)))

    assert planned.gpus[0].kv_cache == 2 * 2 * 512 * 256
    assert planned.host.kv_cache == 5 * 2 * 512 * 256
    assert planned.host.weights == 5 * 100_000 + 150_000


def test_a_gpu_copies_weights_from_main_memory() -> None:
    model = replace(MODEL, layers=(replace(MODEL.layers[0], feed_forward=4000),) * 7)
    whole = plan(Parts(model), Load(2, 512, gpus=ONE)).gpus[0]
    partial = plan(Parts(model), Load(2, 512, gpus=replace(ONE, layers=7))).gpus[0]

    assert partial.compute == whole.compute + 40_000


def test_a_gpu_copies_the_cache_of_a_layer_from_main_memory() -> None:
    whole = plan(Parts(MODEL), Load(2, 512, gpus=ONE)).gpus[0]
    partial = plan(Parts(MODEL), Load(2, 512, gpus=replace(ONE, layers=7))).gpus[0]

    assert partial.compute == whole.compute + 2 * 512 * KV // 7


def test_the_first_gpu_that_is_not_of_a_worker_computes_what_is_in_main_memory() -> None:
    gpus = replace(TWO, layers=0, remote=1)

    worker, local = plan(Parts(MODEL), Load(2, 512, gpus=gpus)).gpus

    assert worker.total == 0
    assert local.compute > 0


def test_experts_of_the_first_layers_can_stay_in_main_memory() -> None:
    model = replace(MODEL, layers=(replace(MODEL.layers[0], experts=80_000),) * 7)

    planned = plan(Parts(model), Load(2, 512, gpus=replace(ONE, cpu_expert_layers=2)))

    assert planned.gpus[0].weights == 7 * 100_000 - 2 * 80_000 + 150_000 + 1024
    assert planned.host.weights == 150_000 + 2 * 80_000


def test_only_the_experts_of_the_first_layers_leave_their_gpu() -> None:
    # All layers are one object, as of equal ones in a record.
    model = replace(MODEL, layers=(replace(MODEL.layers[0], experts=80_000),) * 7)

    planned = plan(Parts(model), Load(2, 512, gpus=replace(TWO, cpu_expert_layers=2)))

    first, second = planned.gpus
    assert first.weights == 4 * 100_000 - 2 * 80_000
    assert second.weights == 3 * 100_000 + 150_000 + 1024


@pytest.mark.parametrize("split_mode", ["layer", "row", "tensor"])
def test_what_leaves_the_gpus_is_in_main_memory(split_mode: str) -> None:
    model = replace(MODEL, tied=False, layers=(replace(MODEL.layers[0], experts=80_000),) * 7)
    gpus = replace(TWO, split_mode=split_mode, cpu_expert_layers=2)

    planned = plan(Parts(model), Load(2, 512, gpus=gpus))

    on_gpus = sum(usage.weights for usage in planned.gpus)
    assert on_gpus + planned.host.weights == model.weights


def test_the_work_for_a_plan_grows_no_faster_than_the_layers() -> None:
    assert _calls(512) <= 2.2 * _calls(256)


def _calls(layers: int) -> int:
    """The calls of functions for the plan of a model whose layers all differ."""
    model = replace(MODEL, layers=tuple(Layer(each, key=64, value=64) for each in range(layers)))
    gpus = Gpus((16 * GIB,) * 32, layers=layers // 2, cpu_expert_layers=998)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        plan(Parts(model), Load(2, 512, flash_attention=False, gpus=gpus))
    finally:
        sys.setprofile(None)
    return calls


def test_without_layers_on_gpus_the_first_one_computes_batches() -> None:
    planned = plan(Parts(MODEL), Load(2, 512, gpus=replace(TWO, layers=0)))

    first, second = planned.gpus
    assert (first.weights, first.kv_cache, first.overhead) == (0, 0, GPU_OVERHEAD)
    assert first.compute > 0
    assert second.total == 0
    assert planned.host.weights == MODEL.weights


def test_two_gpus_have_all_layers_together() -> None:
    first, second = plan(Parts(MODEL), Load(2, 512, gpus=TWO)).gpus

    assert first.weights == 4 * 100_000
    assert second.weights == 3 * 100_000 + 150_000 + 1024
    assert first.kv_cache + second.kv_cache == 2 * 512 * KV


def test_several_gpus_have_copies_of_the_inputs_of_several_batches() -> None:
    one = plan(Parts(MODEL), Load(2, 512, gpus=replace(TWO, split_mode="none")))
    two = plan(Parts(MODEL), Load(2, 512, gpus=TWO))
    mask, vectors = 512 * 512 * 2, 512 * 256 * 4

    assert two.gpus[0].compute - one.gpus[0].compute == 3 * mask + 12 * vectors
    assert two.gpus[1].compute - one.gpus[0].compute == 3 * mask + 3 * vectors
    assert two.host.compute - one.host.compute == 3 * mask + 6 * vectors


def test_a_gpu_with_nothing_but_the_output_has_no_masks() -> None:
    [_, last] = plan(Parts(MODEL), Load(2, 512, gpus=replace(TWO, shares=(7, 1)))).gpus

    assert last.weights == 150_000 + 1024
    assert last.compute < 512 * 512 * 2


def test_a_gpu_has_masks_only_for_its_own_layers() -> None:
    window = replace(MODEL.layers[0], window=256)
    model = replace(MODEL, layers=(*(window,) * 4, *MODEL.layers[:3]))

    whole = plan(Parts(MODEL), Load(2, 8192, gpus=TWO)).gpus
    window_mask, full_mask = (256 + 512) * 512 * 2, 8192 * 512 * 2

    first, second = plan(Parts(model), Load(2, 8192, gpus=TWO)).gpus

    assert first.compute == whole[0].compute - 4 * (full_mask - window_mask)
    assert second == whole[1]


def test_layers_that_share_the_cache_of_another_gpu_have_copies_of_it() -> None:
    sharing = replace(MODEL.layers[0], key=0, value=0)
    model = replace(MODEL, layers=(*MODEL.layers[:4], *(sharing,) * 3))
    whole = plan(Parts(MODEL), Load(2, 512, gpus=TWO)).gpus

    first, second = plan(Parts(model), Load(2, 512, gpus=TWO)).gpus

    assert first == whole[0]
    assert second.kv_cache == 0
    assert second.compute == whole[1].compute + 4 * 3 * (2 * 512 * KV // 7)


def test_main_memory_has_the_inputs_of_layers() -> None:
    without, with_them = (
        plan(Parts(replace(MODEL, layer_inputs=number)), Load(2, 512, gpus=ONE)).host
        for number in (0, 700)
    )

    assert with_them.compute == without.compute + 512 * 700 * 4


def test_rows_are_divided_by_shares() -> None:
    first, second = plan(
        Parts(MODEL), Load(2, 512, gpus=replace(TWO, split_mode="row", shares=(3, 1)))
    ).gpus

    assert first.weights == pytest.approx(3 * second.weights, rel=0.001)


def test_tensors_and_their_cache_are_divided_by_shares() -> None:
    first, second = plan(Parts(MODEL), Load(2, 512, gpus=replace(TWO, split_mode="tensor"))).gpus

    assert first == second
    assert first.kv_cache == 2 * 512 * KV / 2


def test_the_first_gpu_has_all_if_the_model_is_not_split() -> None:
    first, second = plan(Parts(MODEL), Load(2, 512, gpus=replace(TWO, split_mode="none"))).gpus

    assert first.weights == 7 * 100_000 + 150_000 + 1024
    assert second.total == 0


def test_a_projector_is_on_the_first_gpu() -> None:
    parts = Parts(MODEL, Projector(weights=5000, compute=300))
    without, with_one = (plan(each, Load(2, 512, gpus=TWO)).gpus for each in (Parts(MODEL), parts))

    assert with_one[0].total == without[0].total + 5300
    assert with_one[1] == without[1]


def test_a_projector_is_on_no_gpu_of_a_worker() -> None:
    parts = Parts(MODEL, Projector(weights=5000, compute=300))
    load = Load(2, 512, gpus=replace(TWO, remote=1))
    without, with_one = (plan(each, load).gpus for each in (Parts(MODEL), parts))

    assert with_one[0] == without[0]
    assert with_one[1].total == without[1].total + 5300


def test_a_table_that_is_also_the_output_is_whole_on_each_gpu_if_tensors_are_split() -> None:
    first, second = plan(Parts(MODEL), Load(2, 512, gpus=replace(TWO, split_mode="tensor"))).gpus

    assert first.weights + second.weights == 7 * 100_000 + 2 * 150_000 + 1024


def test_a_projector_can_be_in_main_memory() -> None:
    parts = Parts(MODEL, Projector(weights=5000, compute=300), projector_on_gpu=False)
    without, with_one = (plan(each, Load(2, 512, gpus=ONE)) for each in (Parts(MODEL), parts))

    assert with_one.gpus == without.gpus
    assert with_one.host.total == without.host.total + 5300


def test_a_draft_model_needs_its_weights_and_a_cache_as_long() -> None:
    [gpu] = plan(Parts(MODEL, draft=MODEL), Load(2, 512, gpus=ONE)).gpus
    [alone] = plan(Parts(MODEL), Load(2, 512, gpus=ONE)).gpus

    assert (gpu.weights, gpu.kv_cache) == (2 * alone.weights, 2 * alone.kv_cache)
    assert gpu.overhead == alone.overhead


def test_a_draft_model_can_be_in_main_memory() -> None:
    parts = Parts(MODEL, draft=MODEL)
    alone = plan(Parts(MODEL), Load(2, 512, gpus=ONE))
    on_cpu = plan(Parts(MODEL), Load(2, 512, gpus=replace(ONE, layers=0)))

    planned = plan(parts, Load(2, 512, gpus=replace(ONE, draft_layers=0)))

    assert planned.gpus[0].weights == alone.gpus[0].weights
    assert planned.gpus[0].kv_cache == alone.gpus[0].kv_cache
    assert planned.host == alone.host + on_cpu.host


def test_a_context_is_rounded_up_to_256_tokens() -> None:
    planned = [
        plan(Parts(MODEL), Load(2, context, gpus=ONE)).gpus[0].kv_cache for context in (257, 512)
    ]

    assert planned[0] == planned[1]


def test_a_window_bounds_the_cache() -> None:
    model = replace(MODEL, layers=(replace(MODEL.layers[0], window=1024),) * 7)

    [gpu] = plan(Parts(model), Load(2, 8192, gpus=ONE)).gpus

    assert gpu.kv_cache == 2 * (1024 + 512) * KV


def test_quantized_blocks_count_with_their_scale() -> None:
    [gpu] = plan(Parts(MODEL), Load(2, 512, "q8_0", gpus=ONE)).gpus

    assert gpu.kv_cache == 2 * 512 * KV // 2 * 34 // 32


def test_keys_that_do_not_fill_blocks_are_an_error() -> None:
    model = replace(MODEL, layers=(replace(MODEL.layers[0], key=80),) * 7)

    with pytest.raises(UnplannableError, match=r"have 80 numbers, .* multiple of 32"):
        plan(Parts(model), Load(2, 512, "q8_0"))


def test_a_recurrent_state_does_not_depend_on_the_context() -> None:
    planned = [plan(real("mamba"), Load(4, context)).host.kv_cache for context in (1024, 8192)]

    assert planned[0] == planned[1] > 0


@pytest.mark.parametrize(
    "load",
    [(0, 512, "f16"), (5000, 512, "f16"), (1, 0, "f16"), (1, 2**31, "f16"), (1, 512, "q9_0")],
)
def test_settings_out_of_bounds_are_an_error(load: tuple[int, int, str]) -> None:
    with pytest.raises(UnplannableError):
        Load(*load)


loads = st.builds(
    Load,
    slots=st.integers(1, 64),
    context_per_slot=st.integers(1, 65_536),
    kv_cache_type=st.sampled_from(sorted(BITS_PER_VALUE)),
    flash_attention=st.booleans(),
    gpus=st.builds(
        Gpus,
        st.sampled_from([(), (16 * GIB,), (16 * GIB, 8 * GIB), (8 * GIB,) * 4]),
        layers=st.integers(0, 60),
        split_mode=st.sampled_from(["layer", "row", "none", "tensor"]),
    ),
)
models = st.sampled_from(sorted(MODELS))


@given(models, loads, st.integers(2, 5))
def test_a_multiple_of_the_slots_never_needs_less(model: str, load: Load, factor: int) -> None:
    more = replace(load, slots=load.slots * factor)

    for less, usage in zip(plan(real(model), load).gpus, plan(real(model), more).gpus, strict=True):
        assert usage.total >= less.total
    assert plan(real(model), more).host.total >= plan(real(model), load).host.total


@given(models, loads, st.integers(1, 65_536))
def test_more_context_never_needs_less(model: str, load: Load, more: int) -> None:
    longer = replace(load, context_per_slot=load.context_per_slot + more)

    for less, usage in zip(
        plan(real(model), load).gpus, plan(real(model), longer).gpus, strict=True
    ):
        assert usage.total >= less.total


@given(models, loads)
def test_all_weights_are_somewhere(model: str, load: Load) -> None:
    parts = real(model)

    planned = plan(parts, load)

    everywhere = sum(usage.weights for usage in planned.gpus) + planned.host.weights
    assert everywhere >= parts.model.weights
    # The table that is also the output is on each GPU if tensors are split.
    tables = max(len(planned.gpus), 1)
    assert everywhere <= parts.model.weights + tables * parts.model.table + len(planned.gpus)


@given(models, loads)
def test_the_cache_is_divided_among_gpus_and_main_memory(model: str, load: Load) -> None:
    parts = real(model)
    on_cpu = plan(parts, replace(load, gpus=Gpus(()))).host.kv_cache

    planned = plan(parts, load)

    everywhere = sum(usage.kv_cache for usage in planned.gpus) + planned.host.kv_cache
    assert on_cpu <= everywhere <= on_cpu + len(planned.gpus)


@given(models, loads, st.integers(1, 24))
def test_what_is_found_fits_and_the_next_does_not(model: str, load: Load, gibibytes: int) -> None:
    parts = real(model)
    load = replace(load, gpus=Gpus((gibibytes * GIB,)))

    slots = most_slots(parts, load)

    assert slots == 0 or fits(parts, replace(load, slots=slots))
    if 0 < slots < 4096:
        assert not fits(parts, replace(load, slots=slots + 1))


def test_the_largest_context_is_a_multiple_of_256_that_fits() -> None:
    load = Load(4, 1, gpus=Gpus((4 * GIB,)))

    context = most_context(real("qwen3"), load)

    assert context % 256 == 0
    assert fits(real("qwen3"), replace(load, context_per_slot=context))
    assert not fits(real("qwen3"), replace(load, context_per_slot=context + 256))


def test_the_largest_context_is_that_of_the_training() -> None:
    assert most_context(real("llama"), Load(1, 1, gpus=Gpus((200 * GIB,)))) == 131_072


def test_a_model_that_was_trained_with_less_than_a_step_has_its_whole_context() -> None:
    parts = Parts(replace(MODEL, trained_context=100))

    assert most_context(parts, Load(1, 1, gpus=ONE)) == 100


def test_no_context_fits_if_the_weights_do_not() -> None:
    assert most_context(real("llama"), Load(1, 1, gpus=Gpus((GIB // 2,)))) == 0


def test_as_many_layers_as_fit_are_on_the_gpus() -> None:
    load = Load(4, 8192, gpus=Gpus((3 * GIB,)))

    layers = most_layers(real("qwen3"), load)

    assert 0 < layers < 29
    assert fits(real("qwen3"), replace(load, gpus=replace(load.gpus, layers=layers)))
    assert not fits(real("qwen3"), replace(load, gpus=replace(load.gpus, layers=layers + 1)))


def test_all_layers_are_on_the_gpus_if_they_fit() -> None:
    assert most_layers(real("qwen3"), Load(4, 8192, gpus=Gpus((80 * GIB,)))) == 29


def test_no_layers_are_on_gpus_that_are_too_small() -> None:
    assert most_layers(real("qwen3"), Load(4, 8192, gpus=Gpus((GIB // 2,)))) == 0


def test_the_largest_context_of_embeddings_is_that_of_their_batches() -> None:
    load = Load(4, 4096, batch=4096, micro_batch=4096, embeddings=True, gpus=ONE)
    parts = Parts(replace(real("nomic_bert").model, trained_context=2**24))

    context = most_context(parts, load)

    assert fits(parts, load.with_context(context))
    assert not fits(parts, load.with_context(context + 256))
    assert load.with_context(context).micro_batch == context
