"""The workers of a replica: `spec.workers`."""

from typing import Annotated, Any

from pydantic import Field

from slotkeeper.api.resources import DiskSize, Resources
from slotkeeper.api.validation import ApiModel, Rule

MAX_WORKERS = 16
"""The limit of llama.cpp's RPC backend."""


class RpcCache(ApiModel):
    """Files of the weights that a leader has sent to its worker."""

    size_limit: DiskSize | None = None
    """Maximum size of the files of one worker, a quantity from 1Mi to 16Ti. Kubernetes evicts a pod
    with larger files. Set it above the worker's part of the model. Default: no limit.
    Example: 100Gi"""


class Workers(ApiModel):
    """Workers of each replica: pods with an rpc-server, whose GPUs the replica's llama-server
    uses."""

    count: Annotated[int, Field(ge=1, le=MAX_WORKERS, json_schema_extra={"format": "int32"})]
    """Number of workers of one replica, 1 to 16. Each is a pod with gpu.count GPUs. Together with
    those of the leader, a replica has (1 + count) * gpu.count GPUs. Example: 3"""

    resources: Resources | None = None
    """CPU and memory of one worker, as the resources of a container. A worker with GPUs needs
    little main memory. Default: the resources of the replica.
    Example: {requests: {cpu: 2, memory: 4Gi}, limits: {memory: 8Gi}}"""

    cache: RpcCache | None = None
    """Set to keep the weights that a leader has sent to its worker in files on the disk of the
    worker's node, in a folder that is deleted with the pod. When the leader or the worker's
    container restarts, weights do not cross the network again, apart from small tensors. Default:
    the leader sends all weights at each start. Example: {sizeLimit: 100Gi}"""


def _requests_gpus(spec: Any) -> bool:
    resources = spec.workers and spec.workers.resources
    return bool(resources) and spec.gpu.resource_name in {**resources.limits, **resources.requests}


RULES = (
    Rule(
        "!has(self.gpu.tensorSplit) || size(self.gpu.tensorSplit) == "
        "self.gpu.count * (1 + (has(self.workers) ? self.workers.count : 0))",
        "gpu.tensorSplit must have one number for each GPU of a replica: gpu.count numbers, and "
        "gpu.count more for each of its workers",
        lambda spec: (
            spec.gpu.tensor_split is None
            or len(spec.gpu.tensor_split) == spec.gpu.count * spec.pods_per_replica
        ),
    ),
    Rule(
        "!has(self.gpu.mainGpu) || !has(self.workers)",
        "gpu.mainGpu must not be set with workers: the GPUs of a group are not numbered by pods",
        lambda spec: spec.gpu.main_gpu is None or spec.workers is None,
    ),
    Rule(
        "!(self.gpu.resourceName in self.?workers.?resources.?limits.orValue({})) && "
        "!(self.gpu.resourceName in self.?workers.?resources.?requests.orValue({}))",
        "workers.resources must not contain gpu.resourceName: each worker has gpu.count GPUs",
        lambda spec: not _requests_gpus(spec),
    ),
    Rule(
        "!has(self.workers) || !has(self.gpu.resourceClaims) || "
        "!self.gpu.resourceClaims.exists(claim, has(claim.resourceClaimName))",
        "gpu.resourceClaims must not have resourceClaimName with workers: all pods of a replica "
        "would have the same GPUs; set resourceClaimTemplateName",
        lambda spec: (
            spec.workers is None
            or not any(claim.resource_claim_name for claim in spec.gpu.resource_claims or ())
        ),
    ),
    Rule(
        "!has(self.workers) || (self.update.strategy == 'RollingUpdate' && "
        "!has(self.update.maxSurge) && !has(self.update.maxUnavailable))",
        "update must not set strategy, maxSurge or maxUnavailable with workers: groups are always "
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
"""Rules across fields of LlamaServerSpec."""
