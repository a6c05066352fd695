"""Writes what there is to say of a server: its events, then its status."""

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
    """Tells people of servers, by what they read with kubectl."""

    cluster: Cluster
    store: Store
    now: Callable[[], datetime]

    async def write(
        self, raw: Manifest, said: Status, happened: Iterable[EventContent]
    ) -> Manifest:
        """Say this of the server `raw`, whose status is written only where it is another one.

        The server as it is then. Raises ApiError where its status could not be written.
        """
        for happening in happened:
            log.info(
                "server %s/%s: %s: %s",
                raw["metadata"]["namespace"],
                raw["metadata"]["name"],
                happening.reason,
                happening.message,
            )
            try:
                await self.cluster.create(event(happening, raw, self.now()))
            except Conflict:
                log.debug("this event has been written already")
            except ApiError as error:
                # Worth less than the status that follows.
                log.warning("no event %s: %s", happening.reason, error)
        if said == raw.get("status"):
            return raw
        try:
            written = await self.cluster.patch_status({**raw, "status": said})
        except NotFound:
            self.store.confirm_deleted(raw)
            return raw
        self.store.put(written)
        return written
