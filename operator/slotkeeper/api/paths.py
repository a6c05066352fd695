"""llama-server's paths that are open to clients, and the cost of a request to each.

No pydantic: the API's models, the balancer and a gateway all read this table.
"""

from enum import Enum
from types import MappingProxyType


class Cost(Enum):
    """What a request occupies in llama-server."""

    GENERATION = "a slot until the response ends; the prompt stays in the slot's cache"
    COMPUTATION = "a slot until the response ends; the prompt is not cached"
    NONE = "no slot"


PROXIED = MappingProxyType(
    {
        "/completion": Cost.GENERATION,
        "/completions": Cost.GENERATION,
        "/v1/completions": Cost.GENERATION,
        "/chat/completions": Cost.GENERATION,
        "/v1/chat/completions": Cost.GENERATION,
        "/v1/responses": Cost.GENERATION,
        "/responses": Cost.GENERATION,
        "/v1/messages": Cost.GENERATION,
        "/audio/transcriptions": Cost.COMPUTATION,
        "/v1/audio/transcriptions": Cost.COMPUTATION,
        "/infill": Cost.GENERATION,
        "/embedding": Cost.COMPUTATION,
        "/embeddings": Cost.COMPUTATION,
        "/v1/embeddings": Cost.COMPUTATION,
        "/rerank": Cost.COMPUTATION,
        "/reranking": Cost.COMPUTATION,
        "/v1/rerank": Cost.COMPUTATION,
        "/v1/reranking": Cost.COMPUTATION,
        "/tokenize": Cost.NONE,
        "/detokenize": Cost.NONE,
        "/apply-template": Cost.NONE,
        "/v1/messages/count_tokens": Cost.NONE,
        "/chat/completions/input_tokens": Cost.NONE,
        "/v1/chat/completions/input_tokens": Cost.NONE,
        "/responses/input_tokens": Cost.NONE,
        "/v1/responses/input_tokens": Cost.NONE,
    }
)
"""Paths of POST requests that are forwarded to a replica. Administrative paths are excluded."""
