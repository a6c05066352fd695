"""The API group, and names that several processes share.

No pydantic: the balancer's image has none.
"""

GROUP = "slotkeeper.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

KIND = "LlamaServer"
PLURAL = "llamaservers"

GATEWAY_KIND = "LlamaGateway"
GATEWAY_PLURAL = "llamagateways"

FIELD_MANAGER = "slotkeeper"
"""Of the operator, in `metadata.managedFields` and in the label managed-by."""
BALANCER_FIELD_MANAGER = "slotkeeper-balancer"
"""Of the balancers, on their Lease, which the operator creates."""
GATEWAY_FIELD_MANAGER = "slotkeeper-gateway"
"""The name with which gateways, which write nothing, identify themselves."""

START_BLOCKER_ANNOTATION = f"{GROUP}/start-blocker"
"""On the balancers' Role: what blocks all replicas from starting."""
ACCESS_RULES_ANNOTATION = f"{GROUP}/access-rules"
"""On the balancers' Role: the access rules of the current spec."""
PRIME_ANNOTATION = f"{GROUP}/prime"
"""On the balancers' Role: the beginnings in spec.prime.prompts."""
