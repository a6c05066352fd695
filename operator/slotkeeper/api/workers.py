"""Workers of a replica, as a user asks for them in `spec.workers`."""

from typing import Annotated, Any

from pydantic import Field

from slotkeeper.api.resources import Resources
from slotkeeper.api.validation import ApiModel, Rule

MAX_WORKERS = 16
"""As many as llama.cpp's RPC backend reaches."""


class Workers(ApiModel):
    """Makes a replica a group of pods: a llama-server, and workers that lend it their GPUs."""

    count: Annotated[int, Field(ge=1, le=MAX_WORKERS, json_schema_extra={"format": "int32"})]
    """Workers of one replica, 1 to 16, each a pod with gpu.count GPUs of its own. With those of the
    leader, a replica has (1 + count) times gpu.count GPUs. Example: 3"""

    resources: Resources | None = None
    """CPU and memory of one worker, as a container's resources. A worker on GPUs needs little main
    memory. Default: as the replica's resources.
    Example: {requests: {cpu: 2, memory: 4Gi}, limits: {memory: 8Gi}}"""


def _named_gpus(spec: Any) -> bool:
    said = spec.workers and spec.workers.resources
    return bool(said) and spec.gpu.resource_name in {**said.limits, **said.requests}


RULES = (
    Rule(
        "!has(self.gpu.tensorSplit) || size(self.gpu.tensorSplit) == "
        "self.gpu.count * (1 + (has(self.workers) ? self.workers.count : 0))",
        "gpu.tensorSplit must have one number for each GPU of a replica: gpu.count of them, and "
        "as many again for each of its workers",
        lambda spec: (
            spec.gpu.tensor_split is None
            or len(spec.gpu.tensor_split) == spec.gpu.count * spec.pods_per_replica
        ),
    ),
    Rule(
        "!(self.gpu.resourceName in self.?workers.?resources.?limits.orValue({})) && "
        "!(self.gpu.resourceName in self.?workers.?resources.?requests.orValue({}))",
        "workers.resources must not name the GPU: each worker has gpu.count",
        lambda spec: not _named_gpus(spec),
    ),
    Rule(
        "!has(self.workers) || (self.update.strategy == 'RollingUpdate' && "
        "!has(self.update.maxSurge) && !has(self.update.maxUnavailable))",
        "update must not set strategy, maxSurge or maxUnavailable beside workers: groups are "
        "replaced one after the other",
        lambda spec: (
            spec.workers is None
            or (
                spec.update.strategy == "RollingUpdate"
                and spec.update.surge_and_unavailable is None
            )
        ),
    ),
)
"""What must hold between the fields of a LlamaServer's spec."""
