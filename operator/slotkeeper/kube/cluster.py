"""What the rest of the code asks of a Kubernetes API: kinds, objects, watches, errors."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Manifest = dict[str, Any]
"""One Kubernetes object as its JSON tree."""


@dataclass(frozen=True)
class Kind:
    """A kind of object, with the plural that URLs use. Core's group is empty."""

    group: str
    version: str
    plural: str
    kind: str
    metadata_only: bool = False
    """Lists have the objects' metadata alone: it is all that is asked of large ones."""

    @property
    def api_version(self) -> str:
        """As a manifest's `apiVersion` says it."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True)
class Listing:
    """All that matched, and the point in time from which a watch goes on."""

    items: list[Manifest]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent:
    """One change: `type` is ADDED, MODIFIED, DELETED or BOOKMARK.

    A bookmark changes nothing: its object carries only a resource version to go on from.
    """

    type: str
    object: Manifest


class ApiError(Exception):
    """The API did not do what it was asked: HTTP status (0 without an answer), reason, sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):  # noqa: N818 (as Kubernetes names it)
    """There is no such object, or no such kind."""


class Conflict(ApiError):  # noqa: N818 (as Kubernetes names it)
    """The object is not the one that was read: another version, another uid, or already there."""


class Gone(ApiError):  # noqa: N818 (as Kubernetes names it)
    """The resource version is too old to watch from: list again."""


class Unreachable(ApiError):  # noqa: N818 (as Kubernetes names it)
    """No answer: refused, cut, or silent for too long."""


class Cluster(Protocol):
    """A Kubernetes API. Every method raises ApiError or one of its subclasses."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object, or None where there is none."""

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str = "",
    ) -> Listing:
        """The objects with these labels, in one namespace or (None) in all; a label's value ""
        asks only that it is there, `name` for the one of that name."""

    def pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> AsyncIterator[Listing]:
        """What `list` lists, some at a time, all as it was at one version; at least one page.

        Gone where that took too long: begin again.
        """

    async def create(self, manifest: Manifest) -> Manifest:
        """Create the object; Conflict where there is one of that name."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply as this process' field manager, taking fields from other managers.

        A `metadata.resourceVersion` in the manifest guards the write: Conflict when it is old,
        while an object that is not there is created whatever version it names. A `metadata.uid`
        allows it on that very object only: Conflict where there is another, or none.
        """

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete the object and, later, what it owns; quiet where there is none.

        With `uid` only that very object: Conflict where another took its name.
        """

    async def patch_status(self, manifest: Manifest) -> Manifest:
        """Make the object's status what the manifest's `status` says, and nothing but its status.

        NotFound where there is no such object: a status never creates one. Conflict where it has
        another version than `metadata.resourceVersion` says.
        """

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Changes since `resource_version` of what `list` would list, until the stream ends, as it
        does now and then or after a long silence: go on from the last resource version seen. Gone:
        list again."""
