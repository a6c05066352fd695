from typing import Any

import pytest

from llamaservers import parsed, raw_server
from slotkeeper.api.resource import InvalidSpec

URL = "https://models.example.com/model.gguf"
DRAFT = {"url": "https://models.example.com/draft.gguf"}
TOKEN = {"name": "huggingface"}


def speculative(**fields: Any) -> dict[str, Any]:
    return {"speculative": fields}


def test_a_draft_alone_guesses_by_a_model_of_the_same_vocabulary() -> None:
    found = parsed(raw_server(**speculative(draft=DRAFT))).spec.speculative

    assert found
    assert (found.type, found.max_tokens, found.min_probability) == ("draft-simple", None, None)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(speculative(type="ngram-mod", maxTokens=32), id="no draft"),
        pytest.param(speculative(type="draft-mtp"), id="layers in the model's own file"),
        pytest.param(speculative(type="draft-mtp", draft=DRAFT), id="layers in a file"),
        pytest.param(
            speculative(type="ngram-simple") | {"promptCache": {"emptyDir": True}},
            id="prompts that need no state of a draft",
        ),
        pytest.param(
            speculative(type="ngram-simple") | {"workers": {"count": 1}}, id="workers, no draft"
        ),
        pytest.param(
            speculative(draft=DRAFT) | {"model": {"url": URL, "tokenSecretRef": TOKEN}},
            id="a token by TLS",
        ),
        pytest.param(
            speculative(draft={"url": "http://models.ai.svc/draft.gguf"})
            | {"model": {"url": URL, "tokenSecretRef": TOKEN | {"allowHttp": True}}},
            id="a token in the cluster",
        ),
    ],
)
def test_compatible_fields_are_accepted(spec: dict[str, Any]) -> None:
    parsed(raw_server(**spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (speculative(), "must have a draft with this type"),
        (speculative(type="draft-eagle3"), "must have a draft with this type"),
        (speculative(type="ngram-mod", draft=DRAFT), "draft must not be set with an ngram type"),
        (speculative(type="ngram-mod", minProbability=0.5), "minProbability must not be set"),
        (speculative(type="ngram-cache", maxTokens=8), "maxTokens must not be set"),
        (
            speculative(type="ngram-mod") | {"embeddings": {}},
            "speculative must not be set with embeddings",
        ),
        (
            speculative(draft=DRAFT) | {"workers": {"count": 1}},
            r"speculative\.draft must not be set with workers",
        ),
        (
            speculative(draft=DRAFT | {"gpuLayers": 1}) | {"gpu": {"count": 0}},
            r"speculative\.draft\.gpuLayers must not be set if gpu\.count is 0",
        ),
        (
            speculative(draft=DRAFT) | {"promptCache": {"emptyDir": True}},
            "promptCache must not be set with a draft",
        ),
        (
            speculative(type="draft-mtp") | {"promptCache": {"emptyDir": True}},
            "promptCache must not be set with a draft",
        ),
        (
            speculative(draft={"url": "http://models.ai.svc/draft.gguf"})
            | {"model": {"url": URL, "tokenSecretRef": TOKEN}},
            r"speculative\.draft\.url must be an https:// URL with model\.tokenSecretRef",
        ),
        (
            speculative(draft={"url": "http://models.example.com/draft.gguf"})
            | {"model": {"url": URL, "tokenSecretRef": TOKEN | {"allowHttp": True}}},
            r"speculative\.draft\.url must be an https:// URL with model\.tokenSecretRef",
        ),
        (
            speculative(draft={"url": "image:///draft.gguf", "sha256": "ab" * 32}),
            "must not have sha256 with image://",
        ),
        (
            speculative(draft={"url": "https://a.example/d-00001-of-00002.gguf"}),
            "projectors, adapters and drafts must be single files",
        ),
    ],
)
def test_contradicting_fields_are_rejected_with_a_remedy(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        parsed(raw_server(**spec))
