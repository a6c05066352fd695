"""Claims of dynamic resource allocation (DRA): `spec.gpu.resourceClaims`."""

from typing import Annotated, ClassVar

from pydantic import Field

from slotkeeper.api.placement import Name
from slotkeeper.api.validation import ApiModel, Rule, matches

MAX_CLAIMS = 8

_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class ResourceClaim(ApiModel):
    """Claim of GPUs, as in the resourceClaims of a pod, and in those of its container."""

    rules: ClassVar = (
        Rule(
            "has(self.resourceClaimTemplateName) != has(self.resourceClaimName)",
            "must have either resourceClaimTemplateName or resourceClaimName",
            lambda claim: (
                (claim.resource_claim_template_name is None) != (claim.resource_claim_name is None)
            ),
        ),
    )

    name: Annotated[
        str,
        Field(max_length=63),
        matches(_LABEL, "must be the name of a claim: up to 63 lower-case letters, digits and '-'"),
    ]
    """Name of the claim in the pod, which is any. Example: gpu"""

    resource_claim_template_name: Name | None = None
    """Name of a ResourceClaimTemplate in the server's namespace. Each pod gets a claim of its own,
    which is deleted with it. Example: one-a100"""

    resource_claim_name: Name | None = None
    """Name of a ResourceClaim in the server's namespace. All replicas share its GPUs, and their
    memory. Example: shared-a100"""

    request: (
        Annotated[
            str,
            Field(max_length=63),
            matches(_LABEL, "must be the name of a request in the claim"),
        ]
        | None
    ) = None
    """Name of one request in the claim, whose devices llama-server gets. Default: all of the claim.
    Example: gpu"""
