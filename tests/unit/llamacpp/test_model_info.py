import json

import pytest

from slotkeeper.llamacpp.model_info import ModelInfo, parse_model_info

MODELS = {
    "models": [{"name": "tiny", "capabilities": ["completion", 1], "description": "x"}],
    "object": "list",
    "data": [
        {
            "id": "tiny",
            "created": 1,
            "architecture": {"input_modalities": ["text"]},
            "meta": {"n_ctx": 1024, "n_ctx_train": 8192, "n_params": 9639552},
        }
    ],
}
PROPS = {
    "default_generation_settings": {"params": {"temperature": 0.8}, "n_ctx": 1024},
    "model_path": "/models/tiny.gguf",
    "media_marker": "<__media_random__>",
    "modalities": {"vision": False},
    "chat_template": "{{ messages }}",
    "chat_template_caps": {"supports_tools": False},
    "bos_token": "<s>",
    "eos_token": "</s>",
    "build_info": "b11669",
}


def test_what_all_replicas_share_is_kept() -> None:
    info = parse_model_info(json.dumps(MODELS).encode(), json.dumps(PROPS).encode())

    assert info.model == {
        "architecture": {"input_modalities": ["text"]},
        "meta": {"n_ctx": 1024, "n_ctx_train": 8192, "n_params": 9639552},
    }
    assert info.capabilities == ("completion",)
    assert info.generation_params == {"temperature": 0.8}
    assert info.props.keys() == PROPS.keys() - {
        "default_generation_settings",
        "model_path",
        "media_marker",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"data": 1, "models": [1]}',
        b'{"data": [], "models": [{"capabilities": "x"}]}',
        b'{"default_generation_settings": 1}',
        b"[" * 100_000,
        b'{"chat_template": "' + b"x" * 2_000_000 + b'"}',
    ],
)
def test_what_cannot_be_read_is_left_out(body: bytes) -> None:
    assert parse_model_info(body, body) == ModelInfo()
