"""Values of spec.speculative that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected

DRAFT = {"url": "https://models.example.com/draft.gguf"}
HTTP = {"url": "http://models.ai.svc/draft.gguf"}
URL = "https://models.example.com/model.gguf"

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"speculative": {"type": "lookahead"}}, "spec.speculative.type", 'value: "lookahead"'),
    ({"speculative": {}}, "spec.speculative", "must have a draft with this type. Set draft.url"),
    (
        {"speculative": {"type": "ngram-mod", "draft": DRAFT}},
        "spec.speculative",
        "draft must not be set with an ngram type, which guesses from the text so far",
    ),
    (
        {"speculative": {"type": "ngram-mod", "minProbability": 0.5}},
        "spec.speculative",
        "minProbability must not be set with an ngram type",
    ),
    (
        {"speculative": {"type": "ngram-cache", "maxTokens": 8}},
        "spec.speculative",
        "maxTokens must not be set with ngram-cache",
    ),
    (
        {"speculative": {"draft": DRAFT, "maxTokens": 0}},
        "spec.speculative.maxTokens",
        "greater than or equal to 1",
    ),
    (
        {"speculative": {"draft": DRAFT, "minProbability": 1.5}},
        "spec.speculative.minProbability",
        "less than or equal to 1",
    ),
    ({"speculative": {"draft": {}}}, "spec.speculative.draft.url", "Required value"),
    (
        {"speculative": {"draft": {"url": "file:///draft.gguf"}}},
        "spec.speculative.draft.url",
        "must start with http:// or https://",
    ),
    (
        {"speculative": {"draft": DRAFT | {"gpuLayers": 999}}},
        "spec.speculative.draft.gpuLayers",
        "less than or equal to 998",
    ),
    (
        {"speculative": {"draft": DRAFT | {"gpuLayers": 1}}, "gpu": {"count": 0}},
        "spec",
        "speculative.draft.gpuLayers must not be set if gpu.count is 0",
    ),
    (
        {"speculative": {"type": "ngram-mod"}, "embeddings": {}},
        "spec",
        "speculative must not be set with embeddings",
    ),
    (
        {"speculative": {"draft": DRAFT}, "workers": {"count": 1}},
        "spec",
        "speculative.draft must not be set with workers",
    ),
    (
        {"speculative": {"draft": DRAFT}, "promptCache": {"emptyDir": True}},
        "spec",
        "promptCache must not be set with a draft: not every build of llama-server saves",
    ),
    (
        {
            "speculative": {"draft": HTTP},
            "model": {"url": URL, "tokenSecretRef": {"name": "huggingface"}},
        },
        "spec",
        "speculative.draft.url must be an https:// URL with model.tokenSecretRef",
    ),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_invalid_speculative_decoding_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(api, spec, field, message)
