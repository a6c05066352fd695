"""The API group, and the names that several processes share. No pydantic: balancers have none."""

GROUP = "slotkeeper.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

KIND = "LlamaServer"
PLURAL = "llamaservers"

FIELD_MANAGER = "slotkeeper"
"""The operator's, in `metadata.managedFields` and in the label managed-by."""
BALANCER_FIELD_MANAGER = "slotkeeper-balancer"
"""The balancers', of their Lease: the operator creates it and writes the start blocker to it."""

START_BLOCKER_ANNOTATION = f"{GROUP}/start-blocker"
"""On the balancers' Lease: what blocks all replicas from starting."""
CLIENT_ADDRESS_ANNOTATION = f"{GROUP}/client-address"
METRICS_ADDRESS_ANNOTATION = f"{GROUP}/metrics-address"
"""On the balancers' Lease: where its holder listens, as HOST:PORT."""
