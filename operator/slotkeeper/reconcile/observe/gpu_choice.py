"""What `gpu.computeArch: auto` stands for, and GPUs without an image. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from slotkeeper.api.compute_capability import AUTO
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.images import Images, vendor
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.problem import Problem

Arches = tuple[str, ...]


@dataclass(frozen=True)
class GpuChoice:
    """A server with what `auto` stands for now."""

    server: LlamaServer
    arches: Arches | None
    """Compute capabilities for which its image was chosen, for the status; None without `auto`."""


def is_open(server: LlamaServer, pods: Iterable[Manifest]) -> bool:
    """Whether the choice for a server, with these pods of replicas, may be made, or made again.

    Only while none of them has a node, so that a node that is added or removed restarts no replica.
    """
    if not is_auto(server):
        return False
    return recorded(server) is None or not any(pod["spec"].get("nodeName") for pod in pods)


def choose(server: LlamaServer, images: Images, found: Sequence[str] | None) -> GpuChoice:
    """Choose for a server; `found` are the compute capabilities of the nodes that it may use, None
    where they are not known or the choice is not open.

    | found | the table of images has | GPUs | image |
    |---|---|---|---|
    | none, none before | | all | the vendor's |
    | none now | | as before | as before |
    | one or several | one image for all of them | those that have this image | this one |
    | one or several | several images, or lacks one | all | the vendor's |
    """
    if not is_auto(server):
        return GpuChoice(server, None)
    arches = tuple(found or recorded(server) or ())
    chosen = images.arches_sharing_image(arches)
    return GpuChoice(replace(server, chosen_arches=chosen), arches)


def is_auto(server: LlamaServer) -> bool:
    """Whether there is something to choose: an image of its own is for the GPUs of its author."""
    spec = server.spec
    return spec.gpu.compute_arch == AUTO and spec.gpu.count > 0 and spec.image is None


def recorded(server: LlamaServer) -> Arches | None:
    """The last choice, from the status; None without one."""
    gpu = server.status.get("gpu")
    return None if gpu is None else tuple(gpu.get("computeArches", ()))


def no_image(choice: GpuChoice, images: Images, *, listed: bool) -> Problem | None:
    """The problem of a server whose GPUs have no image; None where they have one.

    `listed`: whether the operator may list nodes.
    """
    server = choice.server
    if images.has_llama_server_for(server):
        return None
    gpu = server.spec.gpu
    key = vendor(gpu.resource_name)
    remedies = [f"set the chart value images.llamaServerByVendor.{key}", "image"]
    what = f"{gpu.resource_name} of any kind"
    if choice.arches:
        what = f"all of the compute capabilities {', '.join(choice.arches)}, which the nodes have"
    elif choice.arches is not None and listed:
        what += ", and no node has the label that GPU feature discovery writes"
    elif choice.arches is not None:
        what += ", and the operator may not list nodes"
    elif gpu.compute_arch:
        what = f"compute capability {gpu.compute_arch}"
    if key == "nvidia" and images.by_compute_arch:
        known = ", ".join(images.by_compute_arch)
        remedies.append(f"gpu.computeArch to one that has an image ({known})")
    message = f"no image of llama-server for {what}: {', or '.join(remedies)}"
    return Problem(Reason.NO_IMAGE_FOR_GPU, message)
