"""What is kept of an object: without fields that nothing reads, and no more than a size. Pure.

Users decide how large their objects are. Of one that is too large only an outline is kept, so that
the operator's memory depends on the number of objects alone.
"""

import hashlib
import json
from dataclasses import dataclass

from slotkeeper.kube.cluster import UNREADABLE, Kind, Manifest
from slotkeeper.kube.decode import outline
from slotkeeper.kube.kinds import LEASES, LLAMA_GATEWAYS, LLAMA_SERVERS, REPLICA_SETS

MAX_RESOURCE_BYTES = 256 * 1024
"""Of a LlamaServer or LlamaGateway as JSON, without its status and what `kept` leaves out. Usual
ones have some kilobytes."""

MAX_CHILD_BYTES = 512 * 1024
"""Of any other object. A Deployment has what its LlamaServer specifies and some kilobytes."""

_RESOURCES = {LLAMA_SERVERS, LLAMA_GATEWAYS}

_DROPPED_METADATA = {"managedFields", "resourceVersion", "selfLink"}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


TEMPLATE_DIGEST = "templateDigest"
"""Key in the spec of a ReplicaSet that is kept, instead of its pod template: `template_digest`."""

_POD_TEMPLATE_HASH = "pod-template-hash"
"""The label that the Deployment controller adds to a ReplicaSet's template."""


@dataclass(frozen=True)
class Kept:
    """What is kept of an object: without its resource version."""

    manifest: Manifest
    body: bytes
    """The manifest as JSON."""

    @property
    def unreadable(self) -> str:
        """Why the manifest is an outline; "" if it is not."""
        return str(self.manifest.get(UNREADABLE, ""))


def kept(kind: Kind, manifest: Manifest) -> Kept:
    """Return what is kept of an object of this kind: of one that is too large, its outline.

    The status does not count: a report of the size must not change the size.
    """
    whole = _with_body(_trimmed(kind, manifest))
    maximum = MAX_RESOURCE_BYTES if kind in _RESOURCES else MAX_CHILD_BYTES
    if len(whole.body) <= maximum:
        return whole
    without_status = _with_body(_without_status(whole.manifest))
    size = len(without_status.body)
    if size <= maximum:
        return whole if len(whole.body) <= 2 * maximum else without_status
    reason = whole.unreadable or f"it has {size} bytes as JSON, at most {maximum}"
    short = _with_body(outline(whole.manifest, reason))
    return short if len(short.body) <= maximum else _with_body(_without_status(short.manifest))


def template_digest(template: Manifest) -> str:
    """What identifies a pod template: the same for a Deployment and for its ReplicaSet.

    The Deployment controller compares them in the same way.
    """
    metadata = template.get("metadata") or {}
    labels = metadata.get("labels") or {}
    labels = {name: value for name, value in labels.items() if name != _POD_TEMPLATE_HASH}
    same = {**template, "metadata": {**metadata, "labels": labels}}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]


def _without_status(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest.items() if key != "status"}


def _with_body(manifest: Manifest) -> Kept:
    body = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
    return Kept(manifest, body)


def _trimmed(kind: Kind, manifest: Manifest) -> Manifest:
    metadata = {k: v for k, v in manifest["metadata"].items() if k not in _DROPPED_METADATA}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    trimmed = {**manifest, "metadata": metadata}
    if kind == LEASES:
        # The balancers own the spec and change it at each handover.
        trimmed.pop("spec", None)
    if kind == REPLICA_SETS and UNREADABLE not in manifest:
        trimmed |= _creation(manifest)
    return trimmed


def _creation(replica_set: Manifest) -> Manifest:
    """What a ReplicaSet shows of the creation of its pods. A Deployment has ten old ones."""
    spec, status = replica_set.get("spec") or {}, replica_set.get("status") or {}
    conditions = status.get("conditions") or ()
    return {
        "spec": {
            "replicas": spec.get("replicas", 1),
            TEMPLATE_DIGEST: template_digest(spec.get("template") or {}),
        },
        "status": {
            "replicas": status.get("replicas", 0),
            "conditions": [each for each in conditions if each["type"] == "ReplicaFailure"],
        },
    }
