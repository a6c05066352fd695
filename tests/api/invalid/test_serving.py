"""Values of the fields about serving and extraArgs that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected
from slotkeeper.api.extra_args import REJECTED

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"kvCacheType": "q6_K"}, "spec.kvCacheType", 'Unsupported value: "q6_K"'),
    ({"flashAttention": True}, "spec.flashAttention", "must be of type string"),
    (
        {"kvCacheType": "q8_0", "flashAttention": "disabled"},
        "spec",
        "flashAttention must not be disabled with a quantized kvCacheType",
    ),
    (
        {"gpu": {"count": 2, "splitMode": "tensor"}, "flashAttention": "disabled"},
        "spec",
        "flashAttention must not be disabled with gpu.splitMode: tensor",
    ),
    ({"jinja": "no"}, "spec.jinja", "must be of type boolean"),
    ({"chatTemplate": ""}, "spec.chatTemplate", "should be at least 1 chars long"),
    (
        {"chatTemplate": "{{ messages }}" + " " * 32_754},
        "spec.chatTemplate",
        "may not be more than 32767",
    ),
    ({"chatTemplate": "llama3"}, "spec", "chatTemplate must be a Jinja template, or chatml"),
    ({"chatTemplateKwargs": "{}"}, "spec.chatTemplateKwargs", "must be of type object"),
    (
        {"chatTemplateKwargs": {f"a{number}": 1 for number in range(9)}},
        "spec.chatTemplateKwargs",
        "must have at most 8 items",
    ),
    (
        {"chatTemplateKwargs": {"a": 1}, "jinja": False},
        "spec",
        "chatTemplateKwargs must not be set with jinja: false",
    ),
    (
        {"chatTemplateKwargs": {"a": 1}, "embeddings": {}},
        "spec",
        "chatTemplateKwargs must not be set with embeddings",
    ),
    ({"reasoning": {"format": "openai"}}, "spec.reasoning.format", 'value: "openai"'),
    ({"reasoning": {"enabled": "auto"}}, "spec.reasoning.enabled", "must be of type boolean"),
    (
        {"reasoning": {"budgetTokens": -2}},
        "spec.reasoning.budgetTokens",
        "greater than or equal to -1",
    ),
    (
        {"sampling": {"temperature": -0.1}},
        "spec.sampling.temperature",
        "greater than or equal to 0",
    ),
    ({"contextCheckpoints": -1}, "spec.contextCheckpoints", "greater than or equal to 0"),
    (
        {"contextCheckpoints": 8, "embeddings": {}},
        "spec",
        "contextCheckpoints must not be set with embeddings: no input continues another one",
    ),
    ({"sampling": {"temperature": "0.7"}}, "spec.sampling.temperature", "must be of type number"),
    ({"sampling": {"topK": 0.5}}, "spec.sampling.topK", "must be of type integer"),
    ({"sampling": {"repeatLastN": -1}}, "spec.sampling.repeatLastN", "greater than or equal to 0"),
    ({"sampling": {"topP": 1.1}}, "spec.sampling.topP", "less than or equal to 1"),
    (
        {"sampling": {"repeatPenalty": 0}},
        "spec.sampling.repeatPenalty",
        "must be from 0.01 to 10",
    ),
    ({"sampling": {"seed": 4_294_967_295}}, "spec.sampling.seed", "less than or equal to 4"),
    ({"sampling": {}, "embeddings": {}}, "spec", "sampling must not be set with embeddings"),
    ({"embeddings": {"pooling": "max"}}, "spec.embeddings.pooling", 'value: "max"'),
    (
        {"embeddings": {}, "extraArgs": ["--ubatch_size", "512"]},
        "spec",
        "extraArgs must not set batch sizes with embeddings: they follow contextPerSlot",
    ),
    ({"extraArgs": "--mirostat 2"}, "spec.extraArgs", "must be of type array"),
    ({"extraArgs": ["--mirostat", 2]}, "spec.extraArgs[1]", "must be of type string"),
    ({"extraArgs": ["--verbose"] * 65}, "spec.extraArgs", "must have at most 64 items"),
    ({"extraArgs": ["a" * 4097]}, "spec.extraArgs[0]", "may not be more than 4096"),
    (
        {"extraArgs": ["--mirostat", "2", "--typical-p 0.1"]},
        "spec.extraArgs[2]",
        "must not contain both a flag and its value, which llama-server does not split",
    ),
    ({"extraArgs": ["--mirostat", "$(A)"]}, "spec.extraArgs[1]", "must not contain $("),
    ({"extraArgs": ["a$$(A)"]}, "spec.extraArgs[0]", "Kubernetes would replace $(NAME)"),
    ({"prime": {}}, "spec.prime", "must set at least one of prompts, configMapName and learned"),
    ({"prime": {"learned": False}}, "spec.prime", "must set at least one of prompts"),
    (
        {"prime": {"prompts": [{"text": "a", "chat": "{}"}]}},
        "spec.prime.prompts[0]",
        "must set either text or chat",
    ),
    (
        {"prime": {"prompts": [{"text": ""}]}},
        "spec.prime.prompts[0].text",
        "should be at least 1 chars long",
    ),
    (
        {"prime": {"prompts": [{"text": "a" * 20_000}, {"chat": "b" * 20_000}]}},
        "spec.prime",
        "prompts must have at most 32768 characters together",
    ),
    ({"prime": {"prompts": [{"text": "a"}] * 17}}, "spec.prime.prompts", "at most 16 items"),
    ({"prime": {"configMapName": "A"}}, "spec.prime.configMapName", "name of an object"),
    (
        {"prime": {"learned": True, "maxSeconds": 601}},
        "spec.prime.maxSeconds",
        "less than or equal to 600",
    ),
    (
        {"prime": {"learned": True}, "embeddings": {}},
        "spec",
        "prime must not be set with embeddings",
    ),
    (
        {"promptCache": {}},
        "spec.promptCache",
        "must set exactly one of claimName, node: true and emptyDir: true",
    ),
    (
        {"promptCache": {"node": True, "emptyDir": True}},
        "spec.promptCache",
        "must set exactly one of claimName, node: true and emptyDir: true",
    ),
    (
        {"promptCache": {"emptyDir": True, "sizeLimit": "1Mi"}},
        "spec.promptCache.sizeLimit",
        "must be from 64Mi to 16Ti",
    ),
    (
        {"promptCache": {"emptyDir": True, "minTokens": 0}},
        "spec.promptCache.minTokens",
        "greater than or equal to 1",
    ),
    (
        {"promptCache": {"emptyDir": True}, "workers": {"count": 1}},
        "spec",
        "promptCache must not be set with workers",
    ),
    (
        {"promptCache": {"emptyDir": True}, "embeddings": {}},
        "spec",
        "promptCache must not be set with embeddings",
    ),
    (
        {
            "promptCache": {"emptyDir": True},
            "model": {
                "url": "https://a.example/m.gguf",
                "adapters": [{"url": "https://a.example/l"}],
            },
        },
        "spec",
        "promptCache must not be set with model.adapters",
    ),
    (
        {"promptCache": {"claimName": "a"}, "model": {"url": "pvc://a/model.gguf"}},
        "spec",
        "promptCache.claimName must not be a claim with files of the model",
    ),
    (
        {"extraArgs": ["--port", "80"]},
        "spec.extraArgs[0]",
        "the operator sets the address of llama-server",
    ),
    (
        {"extraArgs": ["-v", "--ctx_size=9"]},
        "spec.extraArgs[1]",
        "must not be -c, --ctx-size or --kv-unified-per-slot: set contextPerSlot",
    ),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_serving_field_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(api, spec, field, message)


@pytest.mark.parametrize(
    ("flag", "message"),
    [(flag, rejected.rule.message) for rejected in REJECTED for flag in rejected.flags],
)
def test_a_flag_of_the_operator_is_rejected(api: ApiServer, flag: str, message: str) -> None:
    assert_rejected(api, {"extraArgs": [flag]}, "spec.extraArgs[0]", message)
