"""Files and batches of a gateway: `spec.batches`."""

from typing import Annotated, ClassVar

from pydantic import Field

from slotkeeper.api.balancer import Size
from slotkeeper.api.placement import Name
from slotkeeper.api.resources import ByteSize, Resources, within
from slotkeeper.api.validation import ApiModel, Rule

_INT32 = {"format": "int32"}

ClaimSize = Annotated[ByteSize, within("100Mi", "64Ti")]


class BatchesStorage(ApiModel):
    """The volume of files and results: an existing claim, or one that the operator creates."""

    rules: ClassVar = (
        Rule(
            "has(self.claimName) != has(self.size)",
            "must set either claimName or size",
            lambda storage: (storage.claim_name is None) != (storage.size is None),
        ),
        Rule(
            "!has(self.storageClassName) || has(self.size)",
            "storageClassName needs size: a claim of claimName has its own",
            lambda storage: storage.storage_class_name is None or storage.size is not None,
        ),
    )

    claim_name: Name | None = None
    """Name of an existing PersistentVolumeClaim in the gateway's namespace, for this gateway only.
    It is never deleted. Example: batches"""

    size: ClaimSize | None = None
    """Size of a PersistentVolumeClaim that the operator creates, a quantity from 100Mi to 64Ti. It
    is deleted, with all files, when batches is removed from the spec or the gateway is deleted.
    Example: 20Gi"""

    storage_class_name: Name | None = None
    """StorageClass of that claim. It cannot be changed. Default: that of the cluster.
    Example: fast"""


class GatewayBatches(ApiModel):
    """OpenAI's files and batches."""

    storage: BatchesStorage
    """The volume of files and results. Example: {size: 20Gi}"""

    max_file_bytes: Size = "200Mi"
    """Maximum size of one file, a quantity from 1Mi to 64Gi. Larger ones are rejected with status
    413. A file for a batch has at most 50000 requests. Default: 200Mi. Example: 512Mi"""

    max_storage_bytes: ClaimSize | None = None
    """Maximum size of all files and results together, a quantity from 100Mi to 64Ti. Further files
    are rejected with status 507. Default: as much as the volume has. Example: 10Gi"""

    retention_days: Annotated[int, Field(ge=1, le=365, json_schema_extra=_INT32)] = 30
    """Time in days after which files, results and batches are deleted, 1 to 365. Default: 30.
    Example: 7"""

    concurrency: Annotated[int, Field(ge=1, le=256, json_schema_extra=_INT32)] = 16
    """Maximum number of requests of batches in progress, 1 to 256. A model with fewer free slots
    gets fewer. Default: 16. Example: 64"""

    resources: Resources | None = None
    """CPU and memory of the pod, as the resources of a container. If set, they are used unchanged.
    Default: requests of cpu 100m and memory 128Mi, and a memory limit of 512Mi plus four times
    maxBodyBytes, which is 640Mi by default. Example: {limits: {memory: 2Gi}}"""
