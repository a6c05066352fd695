"""One operator at a time: a Lease says which, and seeing it renewed proves that watches live."""

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
"""After this long without a renewal, another may take it. A holder that ends gives it back."""
RENEW_DEADLINE_SECONDS = 15.0
"""After this long without a renewal of its own, the holder stops, well before that."""
RETRY_SECONDS = 5.0
"""Between two tries to take or to renew it, and the longest that a renewal may take."""

WATCHED_WITHIN_SECONDS = 60.0
"""How soon the holder must see a renewal through kopf's watch, which may have died silently."""

log = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """This process must write nothing more: end it."""


@dataclass(frozen=True)
class LeaseRef:
    """Where the Lease is, and as whom to hold it."""

    namespace: str
    holder: str


class LeaderElection:
    """A coordination.k8s.io Lease that one process holds.

    Expiry is judged by how long the Lease has not changed on this machine's own clock: clocks of
    two machines need not agree.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: LeaseRef,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._clock = clock
        self._held = False
        self._version = ""
        self._version_since = 0.0
        self._renewed = 0.0
        self._seen = 0.0

    async def try_acquire(self) -> bool:
        """Take the Lease if nobody holds it; whether it is held now. Raises ApiError."""
        lease = await self._cluster.get(LEASES, self._place.namespace, LEASE_NAME)
        try:
            if lease is None:
                held = await self._cluster.create(self._manifest(self._place.holder))
            elif self._is_free(lease):
                held = await self._cluster.apply(self._manifest(self._place.holder, over=lease))
            else:
                return False
        except Conflict:
            return False
        self._note(held)
        self._held = True
        self._seen = self._clock.monotonic()
        return True

    async def acquire(self) -> None:
        """Wait until the Lease is held."""
        log.info("waiting for lease %s/%s", self._place.namespace, LEASE_NAME)
        while not await self._attempt():  # noqa: ASYNC110 (what is waited for is elsewhere)
            await asyncio.sleep(RETRY_SECONDS)
        log.info("holding lease %s/%s", self._place.namespace, LEASE_NAME)

    async def renew(self) -> None:
        """Renew once; LeadershipLostError where it is lost, or too long not renewed."""
        try:
            manifest = self._manifest(self._place.holder)
            manifest["metadata"]["resourceVersion"] = self._version
            async with asyncio.timeout(RETRY_SECONDS):
                self._note(await self._cluster.apply(manifest))
        except Conflict as error:
            raise LeadershipLostError("another operator took the lease") from error
        except (ApiError, TimeoutError) as error:
            if self._clock.monotonic() - self._renewed > RENEW_DEADLINE_SECONDS:
                raise LeadershipLostError(f"the lease cannot be renewed: {error!r}") from error
            log.warning("the lease is not renewed yet: %r", error)

    async def hold(self) -> None:
        """Renew until cancelled; LeadershipLostError where it is lost or kopf sees nothing."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await self.renew()
            if not self.is_healthy():
                raise LeadershipLostError(
                    f"kopf has shown no renewal of the lease for {WATCHED_WITHIN_SECONDS:g} s: "
                    "its watches are dead"
                )

    def on_watched_renewal(self, lease: Manifest) -> None:
        """Call this for each change of the Lease that the watch under test shows."""
        if lease.get("spec", {}).get("holderIdentity") == self._place.holder:
            self._seen = self._clock.monotonic()

    def is_healthy(self) -> bool:
        """Whether the watch under test is alive, or this process does not hold the Lease."""
        return not self._held or self._clock.monotonic() - self._seen <= WATCHED_WITHIN_SECONDS

    def is_valid(self) -> bool:
        """Whether nobody else can hold it, or this process does not even say that it does. False
        in a process that stood still, until it has renewed it."""
        return not self._held or self._clock.monotonic() - self._renewed <= RENEW_DEADLINE_SECONDS

    async def release(self) -> None:
        """Let another one take it at once; quiet where that fails: it expires by itself."""
        try:
            # Read anew: a renewal may have been cancelled after the API server had taken it.
            lease = await self._cluster.get(LEASES, self._place.namespace, LEASE_NAME)
            if lease and lease["spec"].get("holderIdentity") == self._place.holder:
                await self._cluster.apply(self._manifest("", over=lease))
        except ApiError as error:
            log.info("the lease is left to expire: %s", error)

    async def _attempt(self) -> bool:
        try:
            return await self.try_acquire()
        except ApiError as error:
            log.warning("lease: %s", error)
            return False

    def _is_free(self, lease: Manifest) -> bool:
        version = lease["metadata"]["resourceVersion"]
        now = self._clock.monotonic()
        if version != self._version:
            self._version = version
            self._version_since = now
        holder = lease.get("spec", {}).get("holderIdentity")
        mine_or_none = not holder or holder == self._place.holder
        return mine_or_none or now - self._version_since > LEASE_SECONDS

    def _note(self, lease: Manifest) -> None:
        self._version = lease["metadata"]["resourceVersion"]
        self._renewed = self._clock.monotonic()

    def _manifest(self, holder: str, over: Manifest | None = None) -> Manifest:
        metadata: Manifest = {
            "name": LEASE_NAME,
            "namespace": self._place.namespace,
            # By it kopf's one watch of Leases shows this one beside the balancers'.
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
