from typing import Any

import pytest

from llamaservers import parsed, raw_server
from slotkeeper.api.server import InvalidSpec
from slotkeeper.api.serving import Embeddings, Reasoning


def test_a_server_that_says_nothing_writes_text_as_its_model_does() -> None:
    spec = parsed(raw_server()).spec

    assert (spec.kv_cache_type, spec.flash_attention, spec.jinja) == ("f16", "auto", True)
    assert (spec.chat_template, spec.embeddings, spec.extra_args) == (None, None, [])
    assert spec.reasoning == Reasoning(enabled=None, format="auto", budget_tokens=-1)


def test_an_empty_embeddings_makes_an_embedding_server() -> None:
    assert parsed(raw_server(embeddings={})).spec.embeddings == Embeddings(pooling=None)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"kvCacheType": "q8_0"}, id="where attention is as the GPU can"),
        pytest.param({"kvCacheType": "bf16", "flashAttention": "disabled"}, id="not quantised"),
        pytest.param({"chatTemplate": "chatml"}, id="the built-in one that Jinja knows"),
        pytest.param({"chatTemplate": "{%- for m in messages %}…"}, id="a template's text"),
        pytest.param({"chatTemplate": "llama3", "jinja": False}, id="a built-in one"),
        pytest.param({"extraArgs": ["-ub", "2048"]}, id="batches of a model that writes text"),
        pytest.param({"embeddings": {}, "extraArgs": ["-v"]}, id="no batches beside embeddings"),
    ],
)
def test_what_goes_together_is_taken(spec: dict[str, Any]) -> None:
    parsed(raw_server(**spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"kvCacheType": "iq4_nl", "flashAttention": "disabled"},
            "flashAttention must not be disabled with a quantised kvCacheType",
        ),
        ({"chatTemplate": "llama3"}, "set jinja: false for llama.cpp's built-in templates"),
        (
            {"embeddings": {}, "extraArgs": ["--batch_size", "9"]},
            "must not set the batch sizes beside embeddings",
        ),
    ],
)
def test_what_contradicts_is_refused_with_what_to_do(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        parsed(raw_server(**spec))
