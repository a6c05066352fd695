from typing import Any

import pytest

from llamaservers import parsed, raw_server
from slotkeeper.api.resource import InvalidSpec

URL = "https://models.example.com/model.gguf"
ON_CLAIM = {"claimName": "prompts"}


def spec(**fields: Any) -> Any:
    return parsed(raw_server(**fields)).spec


def test_without_the_field_no_prompt_is_stored() -> None:
    assert spec().prompt_cache is None


@pytest.mark.parametrize("place", [ON_CLAIM, {"node": True}, {"emptyDir": True}])
def test_one_place_is_enough(place: dict[str, Any]) -> None:
    cache = spec(promptCache=place).prompt_cache

    assert (cache.size_limit, cache.min_tokens) == ("10Gi", 512)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param({}, id="none"),
        pytest.param({"node": False, "emptyDir": False}, id="none, explicitly"),
        pytest.param({"node": True, "emptyDir": True}, id="two"),
        pytest.param({"claimName": "prompts", "node": True}, id="a claim and the node"),
    ],
)
def test_exactly_one_place_must_be_set(place: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match=r"spec.promptCache: .*exactly one of claimName, node"):
        spec(promptCache=place)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": {"count": 1}}, "promptCache must not be set with workers"),
        ({"embeddings": {}}, "promptCache must not be set with embeddings"),
        (
            {"model": {"url": URL, "adapters": [{"url": URL}]}},
            "promptCache must not be set with model.adapters",
        ),
    ],
)
def test_a_server_whose_slots_cannot_be_saved_is_rejected(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        spec(promptCache=ON_CLAIM, **fields)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"url": URL, "cache": {"claimName": "prompts"}}, id="cache"),
        pytest.param({"url": "pvc://prompts/model.gguf"}, id="model"),
        pytest.param({"url": URL, "mmproj": {"url": "pvc://prompts/mmproj.gguf"}}, id="projector"),
    ],
)
def test_a_claim_with_models_is_rejected(model: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match=r"claimName must not be a claim with files of the model"):
        spec(model=model, promptCache=ON_CLAIM)

    assert spec(model=model, promptCache={"claimName": "others"})
    assert spec(model=model, promptCache={"emptyDir": True})
