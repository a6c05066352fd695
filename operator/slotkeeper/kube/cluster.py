"""The Kubernetes API as the rest of the code uses it: kinds, objects, watches, errors."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Manifest = dict[str, Any]
"""A Kubernetes object as a JSON tree."""

UNREADABLE = "unreadable"
"""Key in the outline of an object that is too large or too deeply nested to be read: the reason.
An outline contains only what identifies the object, and its status. No kind has such a field."""


@dataclass(frozen=True)
class Kind:
    """A kind of object, with its plural for URLs. The core group is empty."""

    group: str
    version: str
    plural: str
    kind: str
    metadata_only: bool = False
    """Lists contain only the objects' metadata: for large objects, of which no more is read."""

    @property
    def api_version(self) -> str:
        """The `apiVersion` of a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True)
class Listing:
    """The objects that matched, and the resource version from which a watch continues."""

    items: list[Manifest]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent:
    """A change: `type` is ADDED, MODIFIED, DELETED or BOOKMARK.

    A bookmark is no change: its object contains only a resource version from which to continue.
    """

    type: str
    object: Manifest


class ApiError(Exception):
    """An API request failed: HTTP status (0 without a response), reason, message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):  # noqa: N818 (as Kubernetes names it)
    """The object or its kind does not exist."""


class Conflict(ApiError):  # noqa: N818 (as Kubernetes names it)
    """The object has another version or uid than the one that was read, or already exists."""


class Gone(ApiError):  # noqa: N818 (as Kubernetes names it)
    """The resource version is too old to watch from. List again."""


class Unreachable(ApiError):  # noqa: N818 (as Kubernetes names it)
    """No complete response: connection refused, lost or timed out."""


class Cluster(Protocol):
    """A Kubernetes API. Every method raises ApiError or one of its subclasses.

    Where an object is returned that breaks a bound, it is an outline: see UNREADABLE.
    """

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return the object, or None if it does not exist."""

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str = "",
    ) -> Listing:
        """Return the objects with these labels, in one namespace or (None) in all.

        A label's value "" matches any value; `name` restricts the list to the object of that name.
        """

    def pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> AsyncIterator[Listing]:
        """Yield what `list` returns in pages, at least one, all as of one resource version.

        A page has a bounded number of objects and of bytes. Raises Gone if reading the pages takes
        too long: list again from the start.
        """

    async def create(self, manifest: Manifest) -> Manifest:
        """Create the object. Raises Conflict if one of that name exists."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply as this process' field manager, by force over other managers.

        `metadata.resourceVersion` in the manifest is a precondition: Conflict if it is old. An
        object that does not exist is created whatever resource version the manifest has.
        `metadata.uid` restricts the write to that object: Conflict if there is another one or none.
        """

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete the object, if it exists, and in the background all that it owns.

        `uid` restricts this to that object: Conflict if there is another one of that name.
        """

    async def patch_status(self, manifest: Manifest) -> Manifest:
        """Set the object's status to the manifest's `status`; nothing else is changed.

        NotFound if the object does not exist: it is never created. Conflict if its version is not
        `metadata.resourceVersion`.
        """

    async def start_of_log(self, namespace: str, pod: str, container: str, max_bytes: int) -> bytes:
        """Return at most so many bytes of the log of a container that runs, from its beginning."""

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after `resource_version` to what `list` would return.

        Returns when the stream ends, which it does regularly and after a long silence: continue
        from the last resource version received. Raises Gone if the list must be read again.
        """
