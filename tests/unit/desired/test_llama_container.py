from typing import Any

import pytest

from kubernetes_expansion import expanded
from llamaservers import IMAGES, server
from slotkeeper.desired import llama_container

DRAFT = {"url": "https://models.example.com/draft.gguf"}


def args(**spec: Any) -> list[str]:
    """The arguments of a replica's llama-server."""
    arguments: list[str] = llama_container.container(server(**spec), IMAGES)["args"]
    return arguments


def value(flag: str, **spec: Any) -> str:
    """The value of a flag."""
    arguments = args(**spec)
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize(
    ("spec", "flag", "expected"),
    [
        ({"slots": 8}, "--parallel", "8"),
        ({"slots": 2, "contextPerSlot": 512}, "--ctx-size", "1024"),
        ({"kvCacheType": "q8_0"}, "--cache-type-k", "q8_0"),
        ({"kvCacheType": "q8_0"}, "--cache-type-v", "q8_0"),
        ({}, "--flash-attn", "auto"),
        ({"flashAttention": "enabled"}, "--flash-attn", "on"),
        ({"flashAttention": "disabled"}, "--flash-attn", "off"),
        ({"chatTemplate": "chatml"}, "--chat-template", "chatml"),
        ({}, "--reasoning", "auto"),
        ({"reasoning": {"enabled": True}}, "--reasoning", "on"),
        ({"reasoning": {"enabled": False}}, "--reasoning", "off"),
        ({"reasoning": {"format": "deepseek"}}, "--reasoning-format", "deepseek"),
        ({"reasoning": {"budgetTokens": 2048}}, "--reasoning-budget", "2048"),
        ({"embeddings": {"pooling": "cls"}}, "--pooling", "cls"),
        ({"embeddings": {}, "contextPerSlot": 8192}, "--ubatch-size", "8192"),
        ({"sampling": {"temperature": 0}}, "--temp", "0"),
        ({"sampling": {"temperature": 0.7}}, "--temp", "0.7"),
        ({"sampling": {"topK": 20}}, "--top-k", "20"),
        ({"sampling": {"topP": 0.8}}, "--top-p", "0.8"),
        ({"sampling": {"minP": 0}}, "--min-p", "0"),
        ({"sampling": {"repeatPenalty": 1.1}}, "--repeat-penalty", "1.1"),
        ({"sampling": {"repeatLastN": 0}}, "--repeat-last-n", "0"),
        ({"sampling": {"presencePenalty": 1.5}}, "--presence-penalty", "1.5"),
        ({"sampling": {"frequencyPenalty": -0.5}}, "--frequency-penalty", "-0.5"),
        ({"sampling": {"seed": 4_294_967_294}}, "--seed", "4294967294"),
        ({}, "--n-gpu-layers", "999"),
        ({"gpu": {"layers": 0}}, "--n-gpu-layers", "0"),
        ({"gpu": {"count": 0}}, "--n-gpu-layers", "0"),
        ({"gpu": {"cpuMoeLayers": 20}}, "--n-cpu-moe", "20"),
        ({"gpu": {"splitMode": "row"}}, "--split-mode", "row"),
        ({"gpu": {"count": 2, "splitMode": "none", "mainGpu": 1}}, "--main-gpu", "1"),
        ({"contextCheckpoints": 8}, "--ctx-checkpoints", "8"),
        ({"speculative": {"type": "ngram-mod"}}, "--spec-type", "ngram-mod"),
        ({"speculative": {"draft": DRAFT}}, "--spec-type", "draft-simple"),
        ({"speculative": {"draft": DRAFT}}, "--spec-draft-model", "/models/draft.gguf"),
        ({"speculative": {"draft": DRAFT}}, "--spec-draft-ngl", "999"),
        ({"speculative": {"draft": DRAFT | {"gpuLayers": 0}}}, "--spec-draft-ngl", "0"),
        ({"speculative": {"draft": DRAFT}, "gpu": {"count": 0}}, "--spec-draft-ngl", "0"),
        ({"speculative": {"draft": DRAFT, "maxTokens": 8}}, "--spec-draft-n-max", "8"),
        ({"speculative": {"draft": DRAFT, "minProbability": 1}}, "--spec-draft-p-min", "1"),
        ({"gpu": {"count": 2, "tensorSplit": [3, 1.5]}}, "--tensor-split", "3,1.5"),
        ({"extraArgs": ["--mirostat", "2"]}, "--mirostat", "2"),
    ],
)
def test_a_field_reaches_llama_server(spec: dict[str, Any], flag: str, expected: str) -> None:
    assert value(flag, **spec) == expected


def test_a_projector_is_on_the_gpu_unless_it_should_not_be() -> None:
    url = "https://models.example.com/m.gguf"

    def seeing(**projector: Any) -> list[str]:
        return args(model={"url": url, "mmproj": {"url": url, **projector}})

    assert "--no-mmproj-offload" in seeing(offload=False)
    assert "--no-mmproj-offload" not in seeing()


def environment(**spec: Any) -> list[dict[str, Any]]:
    container = llama_container.container(server(**spec), IMAGES)
    return list(container.get("env", []))


def test_a_llama_server_with_gpus_logs_its_devices() -> None:
    assert environment() == [{"name": "LLAMA_ARG_LOG_VERBOSITY", "value": "4"}]
    assert environment(gpu={"count": 0}) == []


def test_a_template_reaches_llama_server_as_it_was_written() -> None:
    template = "{{ a }} $(HOME) $$"

    argument = value("--chat-template", chatTemplate=template)

    assert expanded(argument, {"HOME": "/"}) == template


def test_variables_of_the_template_are_json_in_a_fixed_order() -> None:
    kwargs = {"z": ["$(HOME)", None], "a": {"é": True}}

    assert value("--chat-template-kwargs", chatTemplateKwargs=kwargs) == (
        r'{"a":{"\u00e9":true},"z":["$$(HOME)",null]}'
    )
    assert "--chat-template-kwargs" not in args(chatTemplateKwargs={})


def test_the_jinja_flag_precedes_the_template() -> None:
    arguments = args(jinja=False, chatTemplate="llama3")

    assert arguments.index("--no-jinja") < arguments.index("--chat-template")


def test_a_reranker_is_one() -> None:
    assert {"--reranking"} == {"--reranking", "--embeddings"} & set(
        args(embeddings={"pooling": "rank"})
    )


def test_an_embedding_server_has_no_prompt_cache() -> None:
    assert value("--cache-ram", embeddings={}, resources={"limits": {"memory": "4Gi"}}) == "0"


def test_threads_in_extra_args_replace_the_operators() -> None:
    limited = {"limits": {"cpu": 4}}

    assert args(resources=limited, extraArgs=["-t", "2"])[-2:] == ["-t", "2"]
    assert "--threads" not in args(resources=limited, extraArgs=["-t", "2"])


@pytest.mark.parametrize(("seconds", "failures"), [(600, 60), (65, 7)])
def test_a_container_is_restarted_when_its_slots_do_not_respond(
    seconds: int, failures: int
) -> None:
    probe = llama_container.container(server(unresponsiveSeconds=seconds), IMAGES)["livenessProbe"]

    assert probe["httpGet"]["path"] == "/slots"
    assert probe["failureThreshold"] * probe["periodSeconds"] >= seconds
    assert probe["failureThreshold"] == failures
    # The preStop hook waits for the slots, which do not respond, until the end of this period.
    assert probe["terminationGracePeriodSeconds"] == 10


def test_a_container_may_never_be_restarted() -> None:
    container = llama_container.container(server(unresponsiveSeconds=0), IMAGES)

    assert "livenessProbe" not in container
