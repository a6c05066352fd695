"""Access to an object store: `spec.model.s3`."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field

from slotkeeper.api.in_cluster import HTTP_URL
from slotkeeper.api.placement import Name
from slotkeeper.api.validation import ApiModel, Rule, matches


class S3Secret(ApiModel):
    """Secret with an access key of an object store, in the entries AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY, and of a temporary one AWS_SESSION_TOKEN. Its entry `hosts` must list the
    host of the endpoint."""

    name: Name
    """Name of the Secret in the server's namespace. Example: model-store"""


def _is_safe(s3: Any) -> bool:
    endpoint = s3.endpoint
    if s3.secret_ref is None or endpoint is None:
        return True
    return endpoint.startswith("https://") or re.fullmatch(HTTP_URL, endpoint) is not None


class S3(ApiModel):
    """Access to the object store of s3:// URLs."""

    rules: ClassVar = (
        Rule(
            "!has(self.secretRef) || !has(self.endpoint) || self.endpoint.startsWith('https://') "
            f"|| self.endpoint.matches(r'^(?:{HTTP_URL})$')",
            "must have an https:// endpoint with secretRef, or a host of the cluster, whose name "
            "ends with .svc or .svc.cluster.local",
            _is_safe,
        ),
    )

    endpoint: (
        Annotated[
            str,
            Field(max_length=1024),
            matches(
                r"https?://[-.:a-zA-Z0-9_\[\]]+/?",
                "must be the URL of an object store without a path, such as "
                "https://minio.example.com:9000",
            ),
        ]
        | None
    ) = None
    """URL of the object store, such as MinIO or Ceph. Default: that of AWS in the region.
    Example: https://minio.example.com:9000"""

    region: Annotated[
        str,
        Field(max_length=64),
        matches("[a-z0-9][-a-z0-9]*", "must be the name of a region, such as eu-central-1"),
    ] = "us-east-1"
    """Region of the bucket, which is part of the signature. Object stores other than AWS often
    accept any. Default: us-east-1. Example: eu-central-1"""

    path_style: bool | None = None
    """Whether the bucket is in the path of the URL, rather than in the host name. Default: true if
    endpoint is set. Example: false"""

    secret_ref: S3Secret | None = None
    """Access key that signs the requests. Default: requests are not signed, as for public buckets.
    Example: {name: model-store}"""
