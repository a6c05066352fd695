"""Files of prompts that outlive their replica: `spec.promptCache`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from slotkeeper.api.model_url import claim_and_path
from slotkeeper.api.placement import Name
from slotkeeper.api.resources import ByteSize, within
from slotkeeper.api.validation import ApiModel, Rule

_PromptsSize = Annotated[ByteSize, within("64Mi", "16Ti")]


class PromptCache(ApiModel):
    """Saves computed prompts to files, and restores them in the slots of other replicas."""

    rules: ClassVar = (
        Rule(
            "[has(self.claimName), has(self.node) && self.node, "
            "has(self.emptyDir) && self.emptyDir].filter(set, set).size() == 1",
            "must set exactly one of claimName, node: true and emptyDir: true, which is where the "
            "files are",
            lambda cache: sum((cache.claim_name is not None, cache.node, cache.empty_dir)) == 1,
        ),
    )

    claim_name: Name | None = None
    """Name of a PersistentVolumeClaim in the server's namespace, for prompts only. The server has a
    folder of its own in it, which all replicas share, and which is removed with the server.
    Replicas on several nodes need the access mode ReadWriteMany. Example: prompts"""

    node: bool = False
    """Whether the files are in a folder of the node, which the server's replicas on it share. The
    administrator must have allowed it (chart value nodeCache.promptsPath), and Pod Security must
    allow hostPath volumes in the namespace. Default: false. Example: true"""

    empty_dir: bool = False
    """Whether each replica has its own files on the disk of its node, which are deleted with its
    pod: they outlive only a restart of llama-server. Default: false. Example: true"""

    size_limit: _PromptsSize = "10Gi"
    """Maximum size of the server's files in one folder, a quantity from 64Mi to 16Ti. The least
    recently used files are removed. A token of an 8B model takes 128 KiB with kvCacheType f16.
    Default: 10Gi. Example: 50Gi"""

    min_tokens: Annotated[
        int, Field(ge=1, le=16_777_216, json_schema_extra={"format": "int32"})
    ] = 512
    """Minimum length of a prompt that is saved, in tokens, 1 to 16777216. Shorter ones are quickly
    computed. Default: 512. Example: 2048"""


_ON_CLAIM = "startsWith('pvc://' + self.promptCache.claimName + '/')"
_IS_CLAIM_OF_MODEL = (
    "has(self.model.cache) && has(self.model.cache.claimName) && "
    "self.model.cache.claimName == self.promptCache.claimName || "
    f"self.model.url.{_ON_CLAIM} || "
    f"has(self.model.mmproj) && self.model.mmproj.url.{_ON_CLAIM}"
)


def _claims_of_model(model: Any) -> Iterator[str | None]:
    yield model.cache.claim_name
    files = (model, *([model.mmproj] if model.mmproj else []))
    yield from (on_claim[0] for file in files if (on_claim := claim_and_path(file.url)))


def _has_own_claim(spec: Any) -> bool:
    claim = spec.prompt_cache and spec.prompt_cache.claim_name
    return not claim or claim not in _claims_of_model(spec.model)


RULES = (
    Rule(
        "!has(self.promptCache) || !has(self.workers)",
        "promptCache must not be set with workers: the state of a slot would be read from all GPUs "
        "of the group over the network. Remove one of the two",
        lambda spec: spec.prompt_cache is None or spec.workers is None,
    ),
    Rule(
        "!has(self.promptCache) || !has(self.embeddings)",
        "promptCache must not be set with embeddings: their inputs are not kept in a slot. Remove "
        "promptCache",
        lambda spec: spec.prompt_cache is None or spec.embeddings is None,
    ),
    Rule(
        "!has(self.promptCache) || !has(self.model.adapters) || self.model.adapters.size() == 0",
        "promptCache must not be set with model.adapters: a file does not contain with "
        "which adapters a prompt was computed, and requests may select others. Remove one of the "
        "two, or merge the adapter into the model",
        lambda spec: spec.prompt_cache is None or not spec.model.adapters,
    ),
    Rule(
        f"!has(self.promptCache) || !has(self.promptCache.claimName) || !({_IS_CLAIM_OF_MODEL})",
        "promptCache.claimName must not be a claim with files of the model: prompts are data of "
        "users, and other servers may write to that claim. Use another claim",
        _has_own_claim,
    ),
)
"""Rules across fields of LlamaServerSpec."""
