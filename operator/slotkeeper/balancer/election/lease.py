"""The Lease that says which of a server's balancers hands out the slots."""

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
    """A balancer: its name, and HOST:PORT of its two sides."""

    identity: str
    clients: str
    metrics: str

    @property
    def has_addresses(self) -> bool:
        """Both addresses are such."""
        try:
            host_and_port(self.clients), host_and_port(self.metrics)
        except ValueError:
            return False
        return True


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT or [HOST]:PORT. Raises ValueError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as it was read: who holds it (None: nobody), and how often it changed hands."""

    holder: Peer | None
    transitions: int
    version: str
    uid: str = ""
    """Another one where it was deleted and made anew: its count begins anew too."""
    released: bool = False
    """Its last holder let go of it. Else nobody holds it because it is new, or was edited."""
    blocker: StartBlocker | None = None
    """What keeps replicas from starting, as the operator says there."""

    @classmethod
    def read(cls, lease: Manifest) -> Self:
        """What a Lease says, whoever wrote it. One without addresses that could be asked is held
        by nobody."""
        metadata = lease["metadata"]
        spec = lease.get("spec") or {}
        identity = spec.get("holderIdentity") or ""
        said = metadata.get("annotations") or {}
        holder = Peer(
            identity,
            said.get(CLIENT_ADDRESS_ANNOTATION, ""),
            said.get(METRICS_ADDRESS_ANNOTATION, ""),
        )
        count = str(spec.get("leaseTransitions") or 0)
        transitions = int(count) if count.isdecimal() else 0
        given_back = not any((identity, holder.clients, holder.metrics)) and transitions > 0
        return cls(
            holder if holder.identity and holder.has_addresses else None,
            transitions,
            metadata["resourceVersion"],
            metadata.get("uid", ""),
            given_back,
            StartBlocker.from_annotation(said.get(START_BLOCKER_ANNOTATION)),
        )

    def is_newer_than(self, known: "LeaseRecord") -> bool:
        """It is not what was there before `known`. The API server's versions of an object are
        numbers that grow, which all since Kubernetes 1.35 may count on."""
        if self.uid != known.uid or not (self.version.isdecimal() and known.version.isdecimal()):
            return self.uid != known.uid or self.transitions >= known.transitions
        return int(self.version) >= int(known.version)


def manifest(
    namespace: str, name: str, holder: Peer | None, over: LeaseRecord, now: datetime
) -> Manifest:
    """The Lease, held by `holder` from `now` on; only over the very one that was read.

    It has no renewal and no duration. A balancer that is alive answers the others' questions,
    which is known sooner, goes on while the API server is away, and costs no write a second for
    each server.
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
            "resourceVersion": over.version,
            "annotations": annotations,
        },
        "spec": {
            "holderIdentity": holder.identity if holder else "",
            "acquireTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "leaseTransitions": over.transitions + 1,
        },
    }
