"""The Lease that names the leader among a server's balancers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import LEASES

_MAX_TRANSITIONS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as it was read. Anyone may have edited it: its holder is a name, and no proof."""

    holder: str
    """Name of a balancer's pod; empty without a holder."""
    transitions: int
    """How often the holder has changed."""
    version: str
    """The object's resourceVersion."""
    uid: str = ""
    """Changes if the Lease is deleted and created again, and then `transitions` restarts."""
    released: bool = False
    """It had a holder once, and has none now. Otherwise, without a holder, it is new."""

    @classmethod
    def read(cls, lease: Manifest) -> Self:
        """Parse a Lease."""
        metadata = lease["metadata"]
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        count = str(spec.get("leaseTransitions") or 0)
        transitions = int(count) if count.isdecimal() else 0
        return cls(
            holder,
            transitions,
            metadata["resourceVersion"],
            metadata.get("uid", ""),
            released=not holder and transitions > 0,
        )

    def is_newer_than(self, other: "LeaseRecord") -> bool:
        """Whether this is not an earlier state of the Lease than `other`.

        Resource versions of one object are increasing numbers, which clients may rely on since
        Kubernetes 1.35.
        """
        if self.uid != other.uid or not (self.version.isdecimal() and other.version.isdecimal()):
            return self.uid != other.uid or self.transitions >= other.transitions
        return int(self.version) >= int(other.version)


def manifest(
    namespace: str, name: str, holder: str, replaced: LeaseRecord, now: datetime
) -> Manifest:
    """Return the Lease with `holder` (empty: none), acquired `now`; applies only to `replaced`.

    It has neither renewTime nor leaseDurationSeconds. A live balancer responds to the others'
    probes, which shows a failure sooner, works while the API server is unreachable, and costs no
    write a second for each server.
    """
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "resourceVersion": replaced.version,
        },
        "spec": {
            "holderIdentity": holder,
            "acquireTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            # Of an int32, whose maximum anyone may have written.
            "leaseTransitions": replaced.transitions % _MAX_TRANSITIONS + 1,
        },
    }
