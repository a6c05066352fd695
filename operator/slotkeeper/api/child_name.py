"""Names of child objects. No pydantic: the gateway finds its batches by theirs."""

import hashlib

MAX_LENGTH = 63


def child_name(owner: str, suffix: str, max_length: int = MAX_LENGTH) -> str:
    """Return `OWNER-SUFFIX`; longer than `max_length`, the owner is truncated and hashed."""
    name = f"{owner}-{suffix}"
    if len(name) <= max_length:
        return name
    tail = f"-{hashlib.sha256(owner.encode()).hexdigest()[:8]}-{suffix}"
    return owner[: max_length - len(tail)].rstrip("-") + tail


def batches(gateway: str) -> str:
    """Return the name of a gateway's Deployment, Service and claim for batches."""
    return child_name(gateway, "batches")
