"""Objects' identities and owners, and the preconditions that guard a write. Pure."""

from typing import NamedTuple

from typing_extensions import override

from slotkeeper.kube.cluster import Kind, Manifest
from slotkeeper.kube.kinds import kind_of


class Key(NamedTuple):
    """A server's namespace and name."""

    namespace: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Child = tuple[Kind, str]
"""A child's kind and name, unique within its server's namespace."""


def child(manifest: Manifest) -> Child:
    """The kind and name of a child."""
    return kind_of(manifest), manifest["metadata"]["name"]


def owned(manifest: Manifest, uid: str) -> bool:
    """Whether the server with this uid is the object's controller."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def with_precondition(manifest: Manifest, found: Manifest | None) -> Manifest:
    """The manifest, applied only to the object that was found, or (None) only if there is none.

    No object has resource version 1, which is older than any: the API server accepts an apply with
    it where there is no object, and rejects it over any that exists.
    """
    guard = {"resourceVersion": "1"} if found is None else {"uid": found["metadata"]["uid"]}
    return {**manifest, "metadata": {**manifest["metadata"], **guard}}


def without_preconditions(manifest: Manifest) -> Manifest:
    """What a manifest specifies, without the preconditions of its write."""
    preconditions = {"uid", "resourceVersion"}
    metadata = {k: v for k, v in manifest["metadata"].items() if k not in preconditions}
    return {**manifest, "metadata": metadata}
