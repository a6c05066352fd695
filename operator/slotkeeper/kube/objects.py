"""Identities and owners of objects, and preconditions of writes. Pure."""

from typing import NamedTuple

from typing_extensions import override

from slotkeeper.kube.cluster import Kind, Manifest
from slotkeeper.kube.kinds import kind_of


class Key(NamedTuple):
    """Namespace and name of a LlamaServer or LlamaGateway."""

    namespace: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Child = tuple[Kind, str]
"""A child's kind and name, unique within its owner's namespace."""


def child(manifest: Manifest) -> Child:
    """Return the kind and name of a child."""
    return kind_of(manifest), manifest["metadata"]["name"]


def owned(manifest: Manifest, uid: str) -> bool:
    """Whether the resource with this uid is the object's controller."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def with_precondition(manifest: Manifest, observed: Manifest | None) -> Manifest:
    """Return the manifest with the precondition that the observed object still exists.

    Without one (None), the precondition is that no object of this name exists: resource version 1
    is older than any object's. The API server accepts an apply with it if the object does not
    exist, and rejects it otherwise.
    """
    precondition = (
        {"resourceVersion": "1"} if observed is None else {"uid": observed["metadata"]["uid"]}
    )
    return {**manifest, "metadata": {**manifest["metadata"], **precondition}}


def without_preconditions(manifest: Manifest) -> Manifest:
    """Return the manifest without the preconditions of its write."""
    preconditions = {"uid", "resourceVersion"}
    metadata = {k: v for k, v in manifest["metadata"].items() if k not in preconditions}
    return {**manifest, "metadata": metadata}
