"""The API group, and names that several processes share.

No pydantic: the balancer's image has none.
"""

GROUP = "slotkeeper.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

KIND = "LlamaServer"
PLURAL = "llamaservers"

FIELD_MANAGER = "slotkeeper"
"""Of the operator, in `metadata.managedFields` and in the label managed-by."""
BALANCER_FIELD_MANAGER = "slotkeeper-balancer"
"""Of the balancers, on their Lease, which the operator creates and annotates with the start
blocker."""

START_BLOCKER_ANNOTATION = f"{GROUP}/start-blocker"
"""On the balancers' Lease: what blocks all replicas from starting."""
CLIENT_ADDRESS_ANNOTATION = f"{GROUP}/client-address"
METRICS_ADDRESS_ANNOTATION = f"{GROUP}/metrics-address"
"""On the balancers' Lease: addresses of the holder, HOST:PORT."""
