"""What is kept of an object: without fields that nothing reads, and no more than a size. Pure.

Users decide how large their objects are. Of one that is too large only an outline is kept, so that
the operator's memory depends on the number of objects alone.
"""

import json
from dataclasses import dataclass

from slotkeeper.kube.cluster import UNREADABLE, Kind, Manifest
from slotkeeper.kube.decode import outline
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS

MAX_SERVER_BYTES = 256 * 1024
"""Of a LlamaServer as JSON, with its status, without what `kept` leaves out. Usual ones have some
kilobytes."""

MAX_CHILD_BYTES = 512 * 1024
"""Of any other object. A Deployment has what its LlamaServer specifies and some kilobytes."""

_DROPPED_METADATA = {"managedFields", "resourceVersion", "selfLink"}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


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
    """Return what is kept of an object of this kind: of one that is too large, its outline."""
    whole = _with_body(_trimmed(kind, manifest))
    maximum = MAX_SERVER_BYTES if kind == LLAMA_SERVERS else MAX_CHILD_BYTES
    if len(whole.body) <= maximum:
        return whole
    reason = whole.unreadable or f"it has {len(whole.body)} bytes as JSON, at most {maximum}"
    short = _with_body(outline(whole.manifest, reason))
    if len(short.body) <= maximum:
        return short
    return _with_body({k: v for k, v in short.manifest.items() if k != "status"})


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
    return trimmed
