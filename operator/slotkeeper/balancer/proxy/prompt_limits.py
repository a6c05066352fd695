"""Bodies that no replica can process, by its context or by its memory."""

from dataclasses import dataclass

from slotkeeper.edge.routes import BOUNDED_BY_CONTEXT
from slotkeeper.llamacpp.tasks import Tasks
from slotkeeper.wire.errors import HttpError

UNLIMITED_BYTES = 64 * 1024
"""Bodies up to this size are always sent."""
BYTES_PER_TOKEN = 64
r"""More than any text needs: an escaped Cyrillic word (`\u043f…`) has about thirty in the JSON."""
MEMORY_PER_BYTE = 64
"""Bytes of memory per byte of a prompt, for the JSON and the tokenizer: 42 to 55 were measured with
llama-server b11669."""
MEMORY_PER_MEDIA_BYTE = 8
"""The same for images and audio, which are decoded but not tokenized."""
MEMORY_SHARE = 4
"""The part of a replica's memory limit for all prompts that it processes at the same time: a
quarter. The rest is for the KV cache, the prompt cache, and buffers."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Limits of one server's replicas."""

    replica_memory: int = 0
    """Memory limit of a replica's llama-server in bytes; 0: unknown."""
    media: bool = True
    """Whether the model accepts images or audio, whose tokens do not follow from their size."""

    def check(self, path: bytes, size: int, tasks: Tasks, *, slots: int, context: int) -> None:
        """Raise HttpError if a body of `size` bytes can be processed by no replica.

        `size`: more than UNLIMITED_BYTES. `slots` of a replica, `context`: tokens in each of them;
        0 where unknown.
        """
        if context and not self.media and path in BOUNDED_BY_CONTEXT:
            limit = tasks.inputs * context * BYTES_PER_TOKEN
            if size > limit:
                raise _too_large(
                    f"a body of {size} bytes cannot fit into the context of {context} tokens "
                    f"(at most {limit} bytes): send less, or raise contextPerSlot"
                )
        if self.replica_memory and slots:
            per_byte = MEMORY_PER_MEDIA_BYTE if self.media else MEMORY_PER_BYTE
            limit = self.replica_memory // (MEMORY_SHARE * slots * per_byte)
            if size > max(limit, UNLIMITED_BYTES):
                raise _too_large(
                    f"to process {size} bytes takes more memory than a replica has for one request "
                    f"(at most {limit} bytes): send less, or raise resources.limits.memory"
                )


def _too_large(message: str) -> HttpError:
    return HttpError(413, "prompt_too_large", message)
