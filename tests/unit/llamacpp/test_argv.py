from dataclasses import replace

import pytest

from slotkeeper.llamacpp.argv import Chat, Embeddings, Gpus, Sampling, Serving, Speculative, argv

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
    """The value of a flag."""
    arguments = argv(serving)
    return arguments[arguments.index(flag) + 1]


def test_all_relevant_flags_are_passed_explicitly() -> None:
    assert " ".join(argv(SERVING)) == (
        "--model /models/model.gguf --alias chat --host :: --port 8080 --parallel 4 "
        "--cont-batching --ctx-size 16384 --no-kv-unified --cache-type-k f16 --cache-type-v f16 "
        "--cache-ram 512 --flash-attn auto --fit off --n-gpu-layers 999 --split-mode layer --jinja "
        "--reasoning auto --reasoning-format auto --reasoning-budget -1 --metrics --slots "
        "--no-webui"
    )


def test_each_slot_has_the_configured_context() -> None:
    assert value(replace(SERVING, slots=3, context_per_slot=1000), "--ctx-size") == "3000"


def test_keys_and_values_are_cached_in_one_type() -> None:
    quantized = replace(SERVING, kv_cache_type="q8_0", flash_attention="on")

    assert value(quantized, "--cache-type-k") == "q8_0"
    assert value(quantized, "--cache-type-v") == "q8_0"
    assert value(quantized, "--flash-attn") == "on"


def test_without_gpus_no_layer_is_on_one() -> None:
    cpu = replace(SERVING, gpus=None)

    assert value(cpu, "--n-gpu-layers") == "0"
    assert "--split-mode" not in argv(cpu)


def test_a_model_is_split_as_configured() -> None:
    split = replace(
        SERVING, gpus=Gpus(layers=20, split_mode="row", tensor_split=(3, 1.0, 0.5, 24564))
    )

    assert value(split, "--n-gpu-layers") == "20"
    assert value(split, "--split-mode") == "row"
    assert value(split, "--tensor-split") == "3,1,0.5,24564"


def test_experts_of_some_layers_may_be_computed_by_the_cpu() -> None:
    experts = replace(SERVING, gpus=Gpus(cpu_moe_layers=20))

    assert value(experts, "--n-cpu-moe") == "20"
    assert value(experts, "--n-gpu-layers") == "999"
    assert "--n-cpu-moe" not in argv(SERVING)


def test_a_model_that_is_not_split_may_be_on_another_gpu_than_the_first() -> None:
    single = replace(SERVING, gpus=Gpus(split_mode="none", main=1))

    assert value(single, "--main-gpu") == "1"
    assert "--main-gpu" not in argv(SERVING)


def test_a_projector_may_be_in_main_memory() -> None:
    seeing = replace(SERVING, mmproj="/models/mmproj.gguf")

    assert "--no-mmproj-offload" in argv(replace(seeing, mmproj_offload=False))
    assert "--no-mmproj-offload" not in argv(seeing)


def test_checkpoints_may_be_limited() -> None:
    assert value(replace(SERVING, context_checkpoints=0), "--ctx-checkpoints") == "0"
    assert "--ctx-checkpoints" not in argv(SERVING)


def test_threads_are_passed_if_they_are_set() -> None:
    assert value(replace(SERVING, threads=2), "--threads") == "2"
    assert "--threads" not in argv(SERVING)


def test_the_template_follows_the_jinja_flag() -> None:
    chat = Chat(jinja=False, template="llama3")

    assert " --no-jinja --chat-template llama3 " in " ".join(argv(replace(SERVING, chat=chat)))


def test_variables_of_the_template_follow_it() -> None:
    chat = Chat(template="{{ a }}", template_kwargs='{"a":1}')

    assert ' --jinja --chat-template {{ a }} --chat-template-kwargs {"a":1} ' in " ".join(
        argv(replace(SERVING, chat=chat))
    )


def test_reasoning_flags_are_passed_as_configured() -> None:
    chat = Chat(reasoning="on", reasoning_format="deepseek", reasoning_budget=2048)

    assert "--reasoning on --reasoning-format deepseek --reasoning-budget 2048" in " ".join(
        argv(replace(SERVING, chat=chat))
    )


def test_only_sampling_parameters_that_are_set_replace_those_in_the_models_file() -> None:
    sampled = replace(SERVING, sampling=Sampling(temperature=0.7, top_k=0, seed=42))

    assert [word for word in argv(sampled) if word not in argv(SERVING)] == [
        *("--temp", "0.7", "--top-k", "0", "--seed", "42")
    ]


@pytest.mark.parametrize(
    ("speculative", "arguments"),
    [
        pytest.param(
            Speculative("draft-simple", "/models/draft.gguf", 999, 8, 0.75),
            "--spec-type draft-simple --spec-draft-model /models/draft.gguf --spec-draft-ngl 999 "
            "--spec-draft-n-max 8 --spec-draft-p-min 0.75",
            id="a draft",
        ),
        pytest.param(
            Speculative("draft-mtp", max_tokens=2),
            "--spec-type draft-mtp --spec-draft-n-max 2",
            id="layers in the model's file",
        ),
        pytest.param(Speculative("ngram-cache"), "--spec-type ngram-cache", id="defaults"),
        pytest.param(
            Speculative("ngram-simple", max_tokens=9),
            "--spec-type ngram-simple --spec-ngram-simple-size-m 9",
            id="ngram-simple",
        ),
        pytest.param(
            Speculative("ngram-map-k", max_tokens=9),
            "--spec-type ngram-map-k --spec-ngram-map-k-size-m 9",
            id="ngram-map-k",
        ),
        pytest.param(
            Speculative("ngram-map-k4v", max_tokens=9),
            "--spec-type ngram-map-k4v --spec-ngram-map-k4v-size-m 9",
            id="ngram-map-k4v",
        ),
        pytest.param(
            Speculative("ngram-mod", max_tokens=48),
            "--spec-type ngram-mod --spec-ngram-mod-n-max 48",
            id="ngram-mod",
        ),
        pytest.param(
            Speculative("ngram-mod", max_tokens=47),
            "--spec-type ngram-mod --spec-ngram-mod-n-max 47 --spec-ngram-mod-n-min 47",
            id="fewer than its minimum",
        ),
    ],
)
def test_tokens_are_guessed_as_configured(speculative: Speculative, arguments: str) -> None:
    found = argv(replace(SERVING, speculative=speculative))

    assert f" {arguments} --metrics" in " ".join(found)


@pytest.mark.parametrize(
    ("pooling", "arguments"),
    [
        pytest.param(
            None, "--embeddings --batch-size 4096 --ubatch-size 4096", id="the model's default"
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
            id="may be split",
        ),
    ],
)
def test_an_input_that_must_not_be_split_fits_into_one_batch(
    pooling: str | None, arguments: str
) -> None:
    embeddings = replace(SERVING, embeddings=Embeddings(pooling))

    assert f" {arguments} --metrics" in " ".join(argv(embeddings))


def test_a_batch_is_not_larger_than_a_slot() -> None:
    small = replace(SERVING, context_per_slot=256, embeddings=Embeddings("last"))

    assert value(small, "--batch-size") == "256"


def test_extra_arguments_come_last_to_take_precedence() -> None:
    extended = replace(SERVING, extra=("--threads", "3", "--mirostat", "-1"))

    assert argv(extended) == [*argv(SERVING), "--threads", "3", "--mirostat", "-1"]


@pytest.mark.parametrize(("number", "text"), [(1e-50, "0"), (-0.0, "0"), (1.2e-38, "1.2e-38")])
def test_numbers_that_llama_server_cannot_parse_are_zero(number: float, text: str) -> None:
    assert value(replace(SERVING, sampling=Sampling(top_p=number)), "--top-p") == text
    assert value(replace(SERVING, gpus=Gpus(tensor_split=(number, 1))), "--tensor-split") == (
        f"{text},1"
    )
