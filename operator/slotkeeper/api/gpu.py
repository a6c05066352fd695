"""The GPUs of a replica, as a user asks for them in `spec.gpu`."""

from typing import Annotated

from pydantic import Field

from slotkeeper.api.arch import ComputeArch
from slotkeeper.api.rules import Struct, matches


class Gpu(Struct):
    """The GPUs that one replica needs."""

    count: Annotated[int, Field(ge=0, le=128, json_schema_extra={"format": "int32"})] = 1
    """GPUs of one replica, all on one node. The whole model goes onto them. 0 makes a CPU server.
    Default: 1."""

    resource: Annotated[
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
    "no kernel image is available". Default: any."""
