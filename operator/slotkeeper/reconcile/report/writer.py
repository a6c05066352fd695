"""Writes what users read of a server: its events, then its status."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Manifest, NotFound
from slotkeeper.reconcile.report.events import EventContent, event
from slotkeeper.reconcile.report.status import Status
from slotkeeper.reconcile.watch.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StatusWriter:
    """Writes to the API server; `now` is the time of events."""

    cluster: Cluster
    store: Store
    now: Callable[[], datetime]

    async def create_events(
        self, raw: Manifest, events: Iterable[EventContent]
    ) -> list[EventContent]:
        """Create events of the server `raw`. Returns those that could not be created."""
        return [content for content in events if not await self._create(content, raw)]

    async def write_status(self, raw: Manifest, status: Status) -> Manifest | None:
        """Write the status of the server `raw` if it differs.

        Returns the server as it is then; None where it is deleted. Raises ApiError.
        """
        if status == raw.get("status"):
            return raw
        try:
            written = await self.cluster.patch_status({**raw, "status": status})
        except NotFound:
            self.store.confirm_deleted(raw)
            return None
        self.store.put(written)
        return written

    async def _create(self, content: EventContent, raw: Manifest) -> bool:
        metadata = raw["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        level = logging.WARNING if content.type == "Warning" else logging.INFO
        log.log(level, "%s %s: %s: %s", raw["kind"], name, content.reason, content.message)
        try:
            await self.cluster.create(event(content, raw, self.now()))
        except Conflict:
            log.debug("%s %s: event %s exists already", raw["kind"], name, content.reason)
        except ApiError as error:
            # The status that follows matters more.
            log.warning(
                "%s %s: cannot create event %s: %s", raw["kind"], name, content.reason, error
            )
            return False
        return True
