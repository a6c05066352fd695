"""The Lease that names the leader among a server's balancers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import (
    CLIENT_ADDRESS_ANNOTATION,
    METRICS_ADDRESS_ANNOTATION,
    START_BLOCKER_ANNOTATION,
)
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import LEASES


@dataclass(frozen=True, slots=True)
class Peer:
    """A balancer: its name, and HOST:PORT of its clients' port and of its metrics port."""

    identity: str
    clients: str
    metrics: str

    @property
    def has_addresses(self) -> bool:
        """Whether both addresses are valid."""
        try:
            host_and_port(self.clients), host_and_port(self.metrics)
        except ValueError:
            return False
        return True


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT or [HOST]:PORT. Raises ValueError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as it was read."""

    holder: Peer | None
    transitions: int
    """How often the holder has changed."""
    version: str
    """The object's resourceVersion."""
    uid: str = ""
    """Changes if the Lease is deleted and created again, and then `transitions` restarts."""
    released: bool = False
    """Its last holder has released it. Otherwise, without a holder, it is new or was edited."""
    blocker: StartBlocker | None = None
    """What keeps replicas from starting, as the operator has annotated it."""

    @classmethod
    def read(cls, lease: Manifest) -> Self:
        """Parse a Lease, which anyone may have edited: without valid addresses it has no holder."""
        metadata = lease["metadata"]
        spec = lease.get("spec") or {}
        identity = spec.get("holderIdentity") or ""
        annotations = metadata.get("annotations") or {}
        holder = Peer(
            identity,
            annotations.get(CLIENT_ADDRESS_ANNOTATION, ""),
            annotations.get(METRICS_ADDRESS_ANNOTATION, ""),
        )
        count = str(spec.get("leaseTransitions") or 0)
        transitions = int(count) if count.isdecimal() else 0
        released = not any((identity, holder.clients, holder.metrics)) and transitions > 0
        return cls(
            holder if holder.identity and holder.has_addresses else None,
            transitions,
            metadata["resourceVersion"],
            metadata.get("uid", ""),
            released,
            StartBlocker.from_annotation(annotations.get(START_BLOCKER_ANNOTATION)),
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
    namespace: str, name: str, holder: Peer | None, replaced: LeaseRecord, now: datetime
) -> Manifest:
    """Return the Lease with `holder`, acquired `now`; it applies only on top of `replaced`.

    It has neither renewTime nor leaseDurationSeconds. A live balancer responds to the others'
    probes, which shows a failure sooner, works while the API server is unreachable, and costs no
    write a second for each server.
    """
    annotations = (
        {CLIENT_ADDRESS_ANNOTATION: holder.clients, METRICS_ADDRESS_ANNOTATION: holder.metrics}
        if holder
        else {}
    )
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "resourceVersion": replaced.version,
            "annotations": annotations,
        },
        "spec": {
            "holderIdentity": holder.identity if holder else "",
            "acquireTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "leaseTransitions": replaced.transitions + 1,
        },
    }
