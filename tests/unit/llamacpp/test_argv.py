from dataclasses import replace

import pytest

from slotkeeper.llamacpp.argv import Chat, Embeddings, Gpus, Serving, argv

SERVING = Serving(
    model_path="/models/model.gguf",
    alias="chat",
    slots=4,
    context_per_slot=4096,
    cache_ram_mib=512,
    port=8080,
    gpus=Gpus(),
)


def value(serving: Serving, flag: str) -> str:
    """What follows a flag."""
    arguments = argv(serving)
    return arguments[arguments.index(flag) + 1]


def test_a_llama_server_is_told_all_that_it_stands_on() -> None:
    assert " ".join(argv(SERVING)) == (
        "--model /models/model.gguf --alias chat --host 0.0.0.0 --port 8080 --parallel 4 "
        "--cont-batching --ctx-size 16384 --no-kv-unified --cache-type-k f16 --cache-type-v f16 "
        "--cache-ram 512 --flash-attn auto --fit off --n-gpu-layers 999 --split-mode layer --jinja "
        "--reasoning auto --reasoning-format auto --reasoning-budget -1 --metrics --slots "
        "--no-webui"
    )


def test_each_slot_has_the_context_that_was_asked_for_it() -> None:
    assert value(replace(SERVING, slots=3, context_per_slot=1000), "--ctx-size") == "3000"


def test_keys_and_values_are_cached_in_one_type() -> None:
    quantised = replace(SERVING, kv_cache_type="q8_0", flash_attention="on")

    assert value(quantised, "--cache-type-k") == "q8_0"
    assert value(quantised, "--cache-type-v") == "q8_0"
    assert value(quantised, "--flash-attn") == "on"


def test_without_gpus_no_layer_is_on_one() -> None:
    cpu = replace(SERVING, gpus=None)

    assert value(cpu, "--n-gpu-layers") == "0"
    assert "--split-mode" not in argv(cpu)


def test_a_model_is_divided_as_said() -> None:
    divided = replace(
        SERVING, gpus=Gpus(layers=20, split_mode="row", tensor_split=(3, 1.0, 0.5, 24564))
    )

    assert value(divided, "--n-gpu-layers") == "20"
    assert value(divided, "--split-mode") == "row"
    assert value(divided, "--tensor-split") == "3,1,0.5,24564"


def test_threads_are_bounded_where_the_cpu_is() -> None:
    assert value(replace(SERVING, threads=2), "--threads") == "2"
    assert "--threads" not in argv(SERVING)


def test_a_template_follows_what_says_how_it_is_read() -> None:
    chat = Chat(jinja=False, template="llama3")

    assert " --no-jinja --chat-template llama3 " in " ".join(argv(replace(SERVING, chat=chat)))


def test_thoughts_are_bounded_as_said() -> None:
    chat = Chat(reasoning="on", reasoning_format="deepseek", reasoning_budget=2048)

    assert "--reasoning on --reasoning-format deepseek --reasoning-budget 2048" in " ".join(
        argv(replace(SERVING, chat=chat))
    )


@pytest.mark.parametrize(
    ("pooling", "arguments"),
    [
        pytest.param(
            None, "--embeddings --batch-size 4096 --ubatch-size 4096", id="the model's own"
        ),
        pytest.param(
            "mean", "--embeddings --pooling mean --batch-size 4096 --ubatch-size 4096", id="mean"
        ),
        pytest.param(
            "rank", "--reranking --pooling rank --batch-size 4096 --ubatch-size 4096", id="reranker"
        ),
        pytest.param(
            "last",
            "--embeddings --pooling last --batch-size 512 --ubatch-size 512",
            id="may be divided",
        ),
    ],
)
def test_an_input_that_may_not_be_divided_fits_into_one_batch(
    pooling: str | None, arguments: str
) -> None:
    vectors = replace(SERVING, embeddings=Embeddings(pooling))

    assert f" {arguments} --metrics" in " ".join(argv(vectors))


def test_a_batch_is_not_larger_than_a_slot() -> None:
    small = replace(SERVING, context_per_slot=256, embeddings=Embeddings("last"))

    assert value(small, "--batch-size") == "256"


def test_further_arguments_come_last_so_that_they_count() -> None:
    further = replace(SERVING, extra=("--threads", "3", "--top-k", "-1"))

    assert argv(further) == [*argv(SERVING), "--threads", "3", "--top-k", "-1"]
