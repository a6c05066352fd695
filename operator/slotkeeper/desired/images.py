"""Images of the child objects' containers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from slotkeeper.api.gpu import Gpu

PullPolicy = Literal["Always", "IfNotPresent", "Never"]

ANY_ARCH = "default"
"""Key in `by_compute_arch` for all other compute capabilities."""


@dataclass(frozen=True)
class Images:
    """Image references that the operator was installed with."""

    llama_server: str
    """For replicas without GPUs, and for those without an image in `by_compute_arch`."""
    balancer: str
    download: str
    """For the init container that downloads and verifies the model."""
    pull_policy: PullPolicy = "IfNotPresent"
    by_compute_arch: Mapping[str, str] = field(default_factory=dict)
    """For replicas with GPUs: image of llama-server by compute capability, such as 7.5."""

    def llama_server_for(self, gpu: Gpu) -> str:
        """Return the image of llama-server for a server without spec.image."""
        if gpu.count == 0:
            return self.llama_server
        default = self.by_compute_arch.get(ANY_ARCH, self.llama_server)
        return self.by_compute_arch.get(gpu.compute_arch or ANY_ARCH, default)
