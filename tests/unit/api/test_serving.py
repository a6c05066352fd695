from typing import Any

import pytest

from llamaservers import parsed, raw_server
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.serving import Embeddings, Reasoning


def test_a_server_without_serving_fields_generates_text_by_the_models_defaults() -> None:
    spec = parsed(raw_server()).spec

    assert (spec.kv_cache_type, spec.flash_attention, spec.jinja) == ("f16", "auto", True)
    assert (spec.chat_template, spec.embeddings, spec.extra_args) == (None, None, [])
    assert spec.reasoning == Reasoning(enabled=None, format="auto", budget_tokens=-1)


def test_an_empty_embeddings_makes_an_embedding_server() -> None:
    assert parsed(raw_server(embeddings={})).spec.embeddings == Embeddings(pooling=None)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"kvCacheType": "q8_0"}, id="automatic flash attention"),
        pytest.param({"kvCacheType": "bf16", "flashAttention": "disabled"}, id="not quantized"),
        pytest.param({"chatTemplate": "chatml"}, id="the built-in template for Jinja"),
        pytest.param({"chatTemplate": "{%- for m in messages %}…"}, id="the text of a template"),
        pytest.param({"chatTemplate": "llama3", "jinja": False}, id="a built-in template"),
        pytest.param({"extraArgs": ["-ub", "2048"]}, id="batch sizes of a text generation model"),
        pytest.param({"embeddings": {}, "extraArgs": ["-v"]}, id="other arguments with embeddings"),
    ],
)
def test_compatible_fields_are_accepted(spec: dict[str, Any]) -> None:
    parsed(raw_server(**spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"kvCacheType": "iq4_nl", "flashAttention": "disabled"},
            "flashAttention must not be disabled with a quantized kvCacheType",
        ),
        (
            {"gpu": {"splitMode": "tensor"}, "flashAttention": "disabled"},
            "flashAttention must not be disabled with gpu.splitMode: tensor",
        ),
        ({"chatTemplate": "llama3"}, "set jinja: false for llama.cpp's built-in templates"),
        (
            {"chatTemplateKwargs": {"enable_thinking": False}},
            r"spec\.chatTemplateKwargs: must not contain enable_thinking: set reasoning\.enabled",
        ),
        ({"chatTemplateKwargs": {"a-b": 1}}, "must have the names of variables, not 'a-b'"),
        (
            {"chatTemplateKwargs": {f"a{number}": 1 for number in range(9)}},
            "must have at most 8 fields",
        ),
        ({"chatTemplateKwargs": {"a": "a" * 32_768}}, "must have at most 32768 bytes as JSON"),
        (
            {"chatTemplateKwargs": {"a": 1}, "jinja": False},
            "chatTemplateKwargs must not be set with jinja: false",
        ),
        (
            {"chatTemplateKwargs": {"a": 1}, "embeddings": {}},
            "chatTemplateKwargs must not be set with embeddings",
        ),
        (
            {"embeddings": {}, "contextCheckpoints": 0},
            "contextCheckpoints must not be set with embeddings",
        ),
        ({"embeddings": {}, "sampling": {}}, "sampling must not be set with embeddings"),
        (
            {"embeddings": {}, "extraArgs": ["--batch_size", "9"]},
            "must not set batch sizes with embeddings",
        ),
    ],
)
def test_contradicting_fields_are_rejected_with_a_remedy(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        parsed(raw_server(**spec))
