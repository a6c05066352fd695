"""Which errors of the API server reject a write for good. Pure."""

from slotkeeper.kube.cluster import ApiError

INTERNAL = 500
WEBHOOK = "failed calling webhook"
"""Status and message of the API server where a required admission webhook does not respond."""

_TRANSIENT = frozenset({404, 408, 409, 410, 429})


def is_permanent(error: ApiError) -> bool:
    """Whether the API server rejected the write itself, and not only at this moment."""
    if error.status == INTERNAL and WEBHOOK in error.message:
        # For as long as the webhook does not respond this is a rejection.
        return True
    return 400 <= error.status < 500 and error.status not in _TRANSIENT
