"""The GPUs of a replica, as a user asks for them in `spec.gpu`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slotkeeper.api import quantity
from slotkeeper.api.compute_capability import ComputeArch
from slotkeeper.api.resources import Quantity
from slotkeeper.api.validation import ApiModel, Rule, matches

MAX_COUNT = 128

Memory = Annotated[
    Quantity,
    Rule(
        "quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && "
        "quantity(string(self)).compareTo(quantity('1Ti')) <= 0",
        "must be from 1Mi to 1Ti",
        lambda size: 1024**2 <= quantity.parse(size) <= 1024**4,
    ),
]

Share = Annotated[float, Field(ge=0, le=1_000_000)]


class Gpu(ApiModel):
    """The GPUs that one replica needs."""

    rules: ClassVar = (
        Rule(
            "!has(self.tensorSplit) || self.tensorSplit.exists(share, share > 0.0)",
            "tensorSplit must give some GPU a share above 0",
            lambda gpu: gpu.tensor_split is None or any(gpu.tensor_split),
        ),
        Rule(
            "self.count > 0 || (!has(self.layers) && !has(self.minMemory))",
            "count is 0, a CPU server: layers and minMemory need at least one GPU",
            lambda gpu: gpu.count > 0 or (gpu.layers is None and gpu.min_memory is None),
        ),
        Rule(
            "!has(self.minMemory) || self.resourceName.startsWith('nvidia.com/')",
            "minMemory needs a resourceName of nvidia.com: only NVIDIA's GPU feature discovery "
            "labels nodes with it; name other nodes by their own labels in placement.nodeSelector",
            lambda gpu: gpu.min_memory is None or gpu.resource_name.startswith("nvidia.com/"),
        ),
    )

    count: Annotated[int, Field(ge=0, le=MAX_COUNT, json_schema_extra={"format": "int32"})] = 1
    """GPUs of one replica, all on one node, 0 to 128; where workers is set, of each of its pods.
    The model is divided among them. 0 makes a CPU server. Default: 1. Example: 4"""

    resource_name: Annotated[
        str,
        Field(max_length=253),
        matches(
            "[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
            "must be a resource name with a domain, such as nvidia.com/gpu or amd.com/gpu",
        ),
    ] = "nvidia.com/gpu"
    """Name of the extended resource that stands for a GPU, as the node's device plugin announces
    it. Default: nvidia.com/gpu. Example: nvidia.com/mig-3g.20gb"""

    compute_arch: ComputeArch | None = None
    """CUDA compute capability that the GPUs must have: 7.5, 75, sm_75 and compute_75 all mean the
    same. Replicas go only onto nodes labelled with it by GPU feature discovery
    (nvidia.com/gpu.compute.major and .minor), since an image built for another one fails with
    "no kernel image is available". Default: any. Example: 7.5"""

    min_memory: Memory | None = None
    """Least memory of each GPU, a quantity from 1Mi to 1Ti. Replicas go only onto nodes whose label
    nvidia.com/gpu.memory, in MiB by GPU feature discovery, says as much. The label says a little
    less than the card's name: 15360 for a T4 of 16 GB, 24564 for an RTX 4090 of 24 GB. Ask
    for what the model needs, then, not for the name's size. Default: any. Example: 20Gi"""

    layers: Annotated[int, Field(ge=0, le=998, json_schema_extra={"format": "int32"})] | None = None
    """Layers of the model that go onto the GPUs, 0 to 998; the CPU computes the others, from main
    memory and far more slowly. A way to run a model that does not fit the GPUs. Default: all,
    and a model that does not fit is not loaded. Example: 24"""

    split_mode: Annotated[
        Literal["none", "layer", "row", "tensor"], Field(json_schema_extra={"maxLength": 6})
    ] = "layer"
    """How the model is divided among several GPUs. layer: each has some of the layers and their
    KV cache. row: each has a part of each layer; needs a fast link between the GPUs. tensor: as
    row, the KV cache too; experimental in llama.cpp. none: all on the first GPU, the others are
    there for extraArgs to use, as with a draft model. Default: layer. Example: row"""

    tensor_split: Annotated[list[Share], Field(min_length=1, max_length=MAX_COUNT)] | None = None
    """Share of the model that each GPU has, in proportion, one number of 0 to 1000000 for each of
    count GPUs; with workers, for theirs first and for the leader's last. For GPUs of different
    sizes, or where the first needs room for a projector. Default: by the memory that is free on
    each. Example: [3, 1]"""
