"""Leader election among operators, by a Lease. Watched renewals prove that the watches work."""

import asyncio
import logging
from dataclasses import dataclass

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Manifest
from slotkeeper.kube.kinds import LEASES
from slotkeeper.reconcile.clock import Clock

LEASE_NAME = "slotkeeper-operator"

LEASE_SECONDS = 30.0
"""Another operator may acquire a Lease that was not renewed for this long. A holder that ends
releases it."""
RENEW_DEADLINE_SECONDS = 15.0
"""A holder that could not renew it for this long stops, well before another may acquire it."""
RETRY_SECONDS = 5.0
"""Between two tries to acquire or renew it, and the timeout of a renewal."""

WATCHED_WITHIN_SECONDS = 60.0
"""Within this time the holder must see a renewal through kopf's watch, which may die silently."""

log = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """This process must write nothing more: it has to end."""


@dataclass(frozen=True)
class LeaseRef:
    """The namespace of the Lease, and the identity of its holder."""

    namespace: str
    holder: str


class OperatorLease:
    """A coordination.k8s.io Lease that one operator holds.

    It expires when it has not changed for LEASE_SECONDS on this machine's own clock: the clocks of
    two machines need not agree.
    """

    def __init__(self, cluster: Cluster, ref: LeaseRef, clock: Clock) -> None:
        self._cluster = cluster
        self._ref = ref
        self._clock = clock
        self._held = False
        self._version = ""
        self._version_since = 0.0
        self._renewed_at = 0.0
        self._watched_at = 0.0

    async def try_acquire(self) -> bool:
        """Acquire the Lease if it is free; whether it is held now. Raises ApiError."""
        lease = await self._cluster.get(LEASES, self._ref.namespace, LEASE_NAME)
        try:
            if lease is None:
                held = await self._cluster.create(self._manifest(self._ref.holder))
            elif self._is_free(lease):
                held = await self._cluster.apply(self._manifest(self._ref.holder, over=lease))
            else:
                return False
        except Conflict:
            return False
        self._on_renewed(held)
        self._held = True
        self._watched_at = self._clock.monotonic()
        return True

    async def acquire(self) -> None:
        """Wait until the Lease is held."""
        log.info("waiting for lease %s/%s", self._ref.namespace, LEASE_NAME)
        while not await self._attempt():  # noqa: ASYNC110 (another process sets no event here)
            await asyncio.sleep(RETRY_SECONDS)
        log.info("acquired lease %s/%s", self._ref.namespace, LEASE_NAME)

    async def renew(self) -> None:
        """Renew it once. Raises LeadershipLostError where another holds it, or it is too late."""
        try:
            manifest = self._manifest(self._ref.holder)
            manifest["metadata"]["resourceVersion"] = self._version
            async with asyncio.timeout(RETRY_SECONDS):
                self._on_renewed(await self._cluster.apply(manifest))
        except Conflict as error:
            raise LeadershipLostError("another operator acquired the lease") from error
        except (ApiError, TimeoutError) as error:
            if self._clock.monotonic() - self._renewed_at > RENEW_DEADLINE_SECONDS:
                raise LeadershipLostError(f"cannot renew the lease: {error!r}") from error
            log.warning("cannot renew the lease yet: %r", error)

    async def hold(self) -> None:
        """Renew it until cancelled. Raises LeadershipLostError where it is lost, or where kopf's
        watch has died."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await self.renew()
            if not self.is_healthy():
                raise LeadershipLostError(
                    f"kopf's watch has shown no renewal of the lease for "
                    f"{WATCHED_WITHIN_SECONDS:g} s: watch stalled"
                )

    def on_watched_renewal(self, lease: Manifest) -> None:
        """Call this for each change of the Lease that kopf's watch shows."""
        if lease.get("spec", {}).get("holderIdentity") == self._ref.holder:
            self._watched_at = self._clock.monotonic()

    def is_healthy(self) -> bool:
        """Whether kopf's watch works, or this process does not hold the Lease."""
        age = self._clock.monotonic() - self._watched_at
        return not self._held or age <= WATCHED_WITHIN_SECONDS

    def is_valid(self) -> bool:
        """Whether no other process can hold the Lease, or this one has not acquired it yet. False
        in a process that was stopped for a while, until it has renewed it."""
        age = self._clock.monotonic() - self._renewed_at
        return not self._held or age <= RENEW_DEADLINE_SECONDS

    async def release(self) -> None:
        """Let another operator acquire it at once. Where that fails it expires by itself."""
        try:
            # Read again: a renewal may have been cancelled after the API server had accepted it.
            lease = await self._cluster.get(LEASES, self._ref.namespace, LEASE_NAME)
            if lease and lease["spec"].get("holderIdentity") == self._ref.holder:
                await self._cluster.apply(self._manifest("", over=lease))
        except ApiError as error:
            log.info("cannot release the lease, it will expire: %s", error)

    async def _attempt(self) -> bool:
        try:
            return await self.try_acquire()
        except ApiError as error:
            log.warning("cannot acquire the lease: %s", error)
            return False

    def _is_free(self, lease: Manifest) -> bool:
        now = self._clock.monotonic()
        version = lease["metadata"]["resourceVersion"]
        if version != self._version:
            self._version = version
            self._version_since = now
        holder = lease.get("spec", {}).get("holderIdentity")
        mine_or_none = not holder or holder == self._ref.holder
        return mine_or_none or now - self._version_since > LEASE_SECONDS

    def _on_renewed(self, lease: Manifest) -> None:
        self._version = lease["metadata"]["resourceVersion"]
        self._renewed_at = self._clock.monotonic()

    def _manifest(self, holder: str, over: Manifest | None = None) -> Manifest:
        metadata: Manifest = {
            "name": LEASE_NAME,
            "namespace": self._ref.namespace,
            # kopf watches this one Lease by its name; the label is for people.
            "labels": {names.MANAGED_BY_LABEL: FIELD_MANAGER},
        }
        if over is not None:
            metadata["resourceVersion"] = over["metadata"]["resourceVersion"]
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(LEASE_SECONDS),
                "renewTime": self._clock.wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
