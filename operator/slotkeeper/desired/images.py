"""The images that children run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from slotkeeper.api.gpu import Gpu

PullPolicy = Literal["Always", "IfNotPresent", "Never"]

ANY_ARCH = "default"
"""Stands in `by_compute_arch` for all compute capabilities that are not in it."""


@dataclass(frozen=True)
class Images:
    """References of the images that the operator was installed with."""

    llama_server: str
    """For replicas without GPUs, and for all that find none in `by_compute_arch`."""
    balancer: str
    download: str
    """Of the init container that downloads and checks the model."""
    pull_policy: PullPolicy = "IfNotPresent"
    by_compute_arch: Mapping[str, str] = field(default_factory=dict)
    """For replicas with GPUs: the llama-server built for a compute capability such as 7.5."""

    def llama_server_for(self, gpu: Gpu) -> str:
        """The llama-server for a replica whose server names no image of its own."""
        if gpu.count == 0:
            return self.llama_server
        rest = self.by_compute_arch.get(ANY_ARCH, self.llama_server)
        return self.by_compute_arch.get(gpu.compute_arch or ANY_ARCH, rest)
