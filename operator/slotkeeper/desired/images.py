"""Images of the child objects' containers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from slotkeeper.api.server import LlamaServer

PullPolicy = Literal["Always", "IfNotPresent", "Never"]

VENDOR_OF_DOMAIN = {"nvidia.com": "nvidia", "amd.com": "amd", "gpu.intel.com": "intel"}
"""Keys of `by_vendor` for the domains of resource names. Any other domain is a key itself."""


@dataclass(frozen=True)
class Images:
    """Image references that the operator was installed with."""

    llama_server: str
    """For replicas without GPUs."""
    balancer: str
    download: str
    """For the init container that downloads and verifies the model."""
    pull_policy: PullPolicy = "IfNotPresent"
    by_compute_arch: Mapping[str, str] = field(default_factory=dict)
    """For replicas with NVIDIA GPUs: image of llama-server by compute capability, such as 7.5."""
    by_vendor: Mapping[str, str] = field(default_factory=dict)
    """For all other replicas with GPUs: image of llama-server by vendor. It is for any GPU of this
    vendor: a server without a compute capability may get each of those in the cluster."""

    def llama_server_for(self, server: LlamaServer) -> str:
        """Return the image of llama-server for a server: its own, or that of its GPUs.

        Raises LookupError where there is none, as `has_llama_server_for` shows.
        """
        if image := self._llama_server_for(server):
            return image
        raise LookupError(f"no image for {vendor(server.spec.gpu.resource_name)}")

    def has_llama_server_for(self, server: LlamaServer) -> bool:
        """Whether there is an image of llama-server for a server."""
        return self._llama_server_for(server) is not None

    def _llama_server_for(self, server: LlamaServer) -> str | None:
        spec = server.spec
        if spec.image:
            return spec.image
        if spec.gpu.count == 0:
            return self.llama_server
        found = {self.by_compute_arch.get(arch) for arch in server.compute_arches}
        image = found.pop() if len(found) == 1 else None
        return image or self.by_vendor.get(vendor(spec.gpu.resource_name))

    def arches_sharing_image(self, arches: Iterable[str]) -> tuple[str, ...]:
        """Return all compute capabilities with the one image that `by_compute_arch` has for all of
        these; none where it has several, or lacks one of them."""
        images = {self.by_compute_arch.get(arch) for arch in arches}
        if len(images) != 1 or None in images:
            return ()
        (image,) = images
        return tuple(arch for arch, each in self.by_compute_arch.items() if each == image)


def vendor(resource_name: str) -> str:
    """Return the key in `by_vendor` for an extended resource, such as nvidia.com/gpu."""
    domain = resource_name.partition("/")[0]
    return VENDOR_OF_DOMAIN.get(domain, domain)
