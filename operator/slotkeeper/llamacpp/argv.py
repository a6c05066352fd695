"""The command line of a llama-server, with nothing left to its defaults.

llama.cpp's defaults move between builds (the port, the slots, what shares the KV cache), so each
one that a server stands on is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass

ALL_LAYERS = 999
"""For `gpu_layers`: more than any model has, which llama-server takes as all of them."""


@dataclass(frozen=True)
class Serving:
    """What one llama-server serves, and with what."""

    model_path: str
    alias: str
    """Name of the model in its answers and in /v1/models."""
    slots: int
    context_per_slot: int
    """Tokens that each slot has room for."""
    gpu_layers: int
    """Layers of the model on GPUs: 0 for none, ALL_LAYERS for all."""
    cache_ram_mib: int
    """Bound of the cache of prompts that have left their slot, in MiB of main memory."""
    threads: int | None
    """Threads that compute; None for as many as the node has cores."""
    port: int


def argv(serving: Serving) -> list[str]:
    """The arguments that follow the program's name."""
    return list(_arguments(serving))


def _arguments(serving: Serving) -> Iterator[str]:
    yield from ("--model", serving.model_path)
    yield from ("--alias", serving.alias)
    yield from ("--host", "0.0.0.0")
    yield from ("--port", str(serving.port))
    yield from ("--parallel", str(serving.slots))
    # llama-server divides --ctx-size among its slots.
    yield from ("--ctx-size", str(serving.context_per_slot * serving.slots))
    # With one cache for all slots, a long request aborts the others when it fills up.
    yield "--no-kv-unified"
    # The default is 8 GiB whatever the container may take.
    yield from ("--cache-ram", str(serving.cache_ram_mib))
    # Fitting would quietly move layers to the CPU, or shrink the context, until it loads.
    yield from ("--fit", "off")
    yield from ("--n-gpu-layers", str(serving.gpu_layers))
    if serving.threads is not None:
        yield from ("--threads", str(serving.threads))
    yield "--metrics"
    yield "--slots"
