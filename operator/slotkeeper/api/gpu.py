"""The GPUs of a replica: `spec.gpu`."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from slotkeeper.api.automatic import AUTO, Layers
from slotkeeper.api.compute_capability import ComputeArch
from slotkeeper.api.resource_claims import MAX_CLAIMS, ResourceClaim
from slotkeeper.api.resources import ByteSize, within
from slotkeeper.api.validation import ApiModel, Rule, matches

MAX_COUNT = 128

Memory = Annotated[ByteSize, within("1Mi", "1Ti")]

Share = Annotated[float, Field(ge=0, le=1_000_000)]


class Gpu(ApiModel):
    """GPUs of one replica."""

    # CEL cannot read computeArch, which has no type, but a schema can require that it is missing.
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"resourceName": {"pattern": "^nvidia\\.com/"}}},
                {"not": {"required": ["computeArch"]}},
            ]
        }
    )

    rules: ClassVar = (
        Rule(
            "!has(self.tensorSplit) || self.tensorSplit.exists(share, share > 0.0)",
            "tensorSplit must have at least one share above 0",
            lambda gpu: gpu.tensor_split is None or any(gpu.tensor_split),
        ),
        Rule(
            "self.count > 0 || (!has(self.layers) && !has(self.minMemory))",
            "layers and minMemory must not be set if count is 0: they require a GPU",
            lambda gpu: gpu.count > 0 or (gpu.layers is None and gpu.min_memory is None),
        ),
        Rule(
            "self.count > 0 || !has(self.memory)",
            "memory must not be set if count is 0: it is that of a GPU",
            lambda gpu: gpu.count > 0 or gpu.memory is None,
        ),
        Rule(
            "self.count > 0 || (!has(self.cpuMoeLayers) && !has(self.mainGpu))",
            "cpuMoeLayers and mainGpu must not be set if count is 0: they require a GPU",
            lambda gpu: gpu.count > 0 or (gpu.cpu_moe_layers is None and gpu.main_gpu is None),
        ),
        Rule(
            "!has(self.mainGpu) || self.splitMode == 'none'",
            "mainGpu must not be set unless splitMode is none: otherwise the model is on all GPUs",
            lambda gpu: gpu.main_gpu is None or gpu.split_mode == "none",
        ),
        Rule(
            "!has(self.mainGpu) || self.mainGpu == 0 || self.mainGpu < self.count",
            "mainGpu must be less than count: the first GPU is 0",
            lambda gpu: not gpu.main_gpu or gpu.main_gpu < gpu.count,
        ),
        Rule(
            "!has(self.minMemory) || self.resourceName.startsWith('nvidia.com/')",
            "minMemory must not be set unless resourceName is in nvidia.com/: only NVIDIA's GPU "
            "feature discovery labels nodes with it; for other nodes set placement.nodeSelector",
            lambda gpu: gpu.min_memory is None or gpu.resource_name.startswith("nvidia.com/"),
        ),
        Rule(
            "!has(self.resourceClaims) || (self.count > 0 && !has(self.minMemory))",
            "resourceClaims must not be set if count is 0, or with minMemory: count is the number "
            "of GPUs in the claims, and a claim selects them by their memory itself",
            lambda gpu: not gpu.resource_claims or (gpu.count > 0 and gpu.min_memory is None),
        ),
    )

    @model_validator(mode="after")
    def _compute_arch_is_of_nvidia(self) -> "Gpu":
        # The API server has the same rule in its schema.
        if self.compute_arch is not None and not self.resource_name.startswith("nvidia.com/"):
            raise ValueError(
                "computeArch must not be set unless resourceName is in nvidia.com/: only NVIDIA's "
                "GPUs have compute capabilities; for other nodes set placement.nodeSelector"
            )
        return self

    count: Annotated[int, Field(ge=0, le=MAX_COUNT, json_schema_extra={"format": "int32"})] = 1
    """Number of GPUs of one replica, all on one node, 0 to 128. If workers is set: of each of its
    pods. The model is split across them. With 0 the model runs on the CPU. With resourceClaims: how
    many GPUs the claims allocate. Of MIG slices or shares of GPUs, more than 1 is of no use: CUDA
    uses one slice in a process. Default: 1. Example: 4"""

    resource_name: Annotated[
        str,
        Field(max_length=253),
        matches(
            "[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
            "must be a resource name with a domain, such as nvidia.com/gpu or amd.com/gpu",
        ),
    ] = "nvidia.com/gpu"
    """Name of the extended resource of a GPU, as the device plugin registers it. Its domain is that
    of the vendor, by which the chart has images. With resourceClaims nothing else depends on it.
    Default: nvidia.com/gpu. Example: nvidia.com/mig-3g.20gb"""

    resource_claims: (
        Annotated[
            list[ResourceClaim],
            Field(min_length=1, max_length=MAX_CLAIMS),
            Rule(
                "self.all(one, self.exists_one(other, other.name == one.name))",
                "must not contain a name twice",
                lambda claims: len({claim.name for claim in claims}) == len(claims),
            ),
        ]
        | None
    ) = None
    """Claims of the GPUs by dynamic resource allocation (DRA), instead of the extended resource, up
    to 8. Each pod has them. Requires Kubernetes 1.34, and a DRA driver of the GPUs. Default: none.
    Example: [{name: gpu, resourceClaimTemplateName: one-a100}]"""

    supplemental_groups: Annotated[
        list[Annotated[int, Field(ge=1, le=2**31 - 1, json_schema_extra={"format": "int64"})]],
        Field(max_length=16),
    ] = Field(default_factory=list)
    """Groups of the node that own the devices of its GPUs, as numbers of 1 to 2147483647, up to 16.
    llama-server does not run as root, and ROCm and Vulkan open /dev/kfd and /dev/dri, which belong
    to the groups render and video. Their numbers differ between distributions. Default: none.
    Example: [44, 109]"""

    compute_arch: ComputeArch | None = None
    """CUDA compute capability of the GPUs: major and minor version with a dot, or without it, also
    after sm_ or compute_. 7.5, 75, sm_75 and compute_75 are the same. Replicas are scheduled only
    to nodes with this capability in the labels of GPU feature discovery
    (nvidia.com/gpu.compute.major and .minor), because an image built for another capability fails
    with "no kernel image is available". auto: what the nodes have when a replica is first desired,
    as status.gpu shows; with several, an image for all of them. Only for NVIDIA's GPUs:
    rejected with a resourceName of another vendor. Default: any. Example: 7.5"""

    min_memory: Memory | None = None
    """Minimum memory of each GPU, a quantity from 1Mi to 1Ti. Replicas are scheduled only to nodes
    whose label nvidia.com/gpu.memory, which GPU feature discovery sets in MiB, is at least as
    large. The label is a little below the nominal size: 15360 for a T4 of 16 GB, 24564 for an RTX
    4090 of 24 GB. So set what the model needs, not the nominal size. Of a share of a GPU, the
    label is the memory of the whole GPU. Default: any. Example: 20Gi"""

    memory: Memory | None = None
    """Memory of each GPU, a quantity from 1Mi to 1Ti, as its driver shows it: a little less than
    the nominal size. Before a replica starts, the condition FitsMemory then says whether the model
    fits. It does not select nodes: minMemory does. Default: the smallest in the labels
    nvidia.com/gpu.memory of the nodes that replicas may use, if the operator may list nodes.
    Example: 15Gi"""

    layers: Layers | None = None
    """Number of the model's layers on the GPUs, 0 to 998. The CPU computes the others from main
    memory, far more slowly. For a model that does not fit into the GPUs. auto: as many as fit with
    all slots and their context; chosen before the first replica starts, as status.memory shows, and
    again when the model or a setting of it changes. Default: all; a model that does not fit is not
    loaded. Example: 24"""

    cpu_moe_layers: (
        Annotated[int, Field(ge=1, le=998, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Number of layers, from the first one, whose experts stay in main memory, where the CPU
    computes them, 1 to 998. For a mixture-of-experts model that does not fit into the GPUs: far
    faster than fewer layers, because each token needs few of the experts. Default: the experts of
    all layers are on the GPUs. Example: 20"""

    split_mode: Annotated[
        Literal["none", "layer", "row", "tensor"], Field(json_schema_extra={"maxLength": 6})
    ] = "layer"
    """Split of the model across several GPUs. layer: each GPU has some of the layers and their KV
    cache. row: each GPU has a part of every layer; needs a fast link between the GPUs. tensor: as
    row, but including the KV cache; experimental in llama.cpp. none: all on one GPU,
    mainGpu; the others are free for extraArgs. Default: layer. Example: row"""

    main_gpu: (
        Annotated[int, Field(ge=0, le=MAX_COUNT - 1, json_schema_extra={"format": "int32"})] | None
    ) = None
    """The GPU with the model if splitMode is none, 0 to 127, and less than count. Default: 0, the
    first one. Example: 1"""

    tensor_split: Annotated[list[Share], Field(min_length=1, max_length=MAX_COUNT)] | None = None
    """Proportion of the model on each GPU: count numbers of 0 to 1000000 each. With workers: those
    of the workers' GPUs first, those of the leader's GPUs last. For GPUs of different sizes, or if
    the first one needs memory for a projector. Default: by the free memory of each GPU.
    Example: [3, 1]"""

    @property
    def layer_count(self) -> int | None:
        """Number of layers on the GPUs; None for all, also before auto is chosen."""
        return None if self.layers is None or self.layers == AUTO else int(self.layers)
