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

_RETRIED = frozenset({408, 409, 429})

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
        self._rejected: str | None = None
        """Why the API server rejected the last try to acquire it."""

    async def try_acquire(self) -> bool:
        """Acquire the Lease if it is free; whether it is held now. Raises ApiError."""
        lease = await self._read()
        began = self._clock.monotonic()
        try:
            if lease is None:
                held = await self._cluster.create(self._manifest(self._ref.holder))
            elif self._is_free(lease):
                held = await self._cluster.apply(self._manifest(self._ref.holder, over=lease))
            else:
                return False
        except Conflict:
            return False
        self._on_renewed(held, began)
        self._held = True
        self._watched_at = self._clock.monotonic()
        return True

    async def acquire(self) -> None:
        """Wait until the Lease is held."""
        log.info("waiting for %s", self._name)
        while not await self._attempt():  # noqa: ASYNC110 (another process sets no event here)
            await asyncio.sleep(RETRY_SECONDS)
        log.info("acquired %s", self._name)

    async def renew(self) -> None:
        """Renew it once. Raises LeadershipLostError where another holds it, or it is too late."""
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._renew()
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
            if problem := self.problem():
                raise LeadershipLostError(problem)

    def on_watched_renewal(self, lease: Manifest) -> None:
        """Call this for each change of the Lease that kopf's watch shows."""
        if lease.get("spec", {}).get("holderIdentity") == self._ref.holder:
            self._watched_at = self._clock.monotonic()

    def problem(self) -> str | None:
        """Why this process cannot work, or None: kopf's watch has died, or the API server rejects
        its requests for the Lease."""
        if not self._held:
            return self._rejected
        if self._clock.monotonic() - self._watched_at <= WATCHED_WITHIN_SECONDS:
            return None
        return (
            f"watch stalled: kopf's watch has shown no renewal of the lease for "
            f"{WATCHED_WITHIN_SECONDS:g} s"
        )

    def leads(self) -> bool:
        """Whether this process holds the Lease."""
        return self._held and self.is_valid()

    def is_valid(self) -> bool:
        """Whether no other process can hold the Lease, or this one has not acquired it yet. False
        in a process that was stopped for a while, until it has renewed it."""
        age = self._clock.monotonic() - self._renewed_at
        return not self._held or age <= RENEW_DEADLINE_SECONDS

    async def release(self) -> None:
        """Let another operator acquire it at once. Where that fails it expires by itself."""
        try:
            # Read again: a renewal may have been cancelled after the API server had accepted it.
            lease = await self._read()
            if lease and lease["spec"].get("holderIdentity") == self._ref.holder:
                await self._cluster.apply(self._manifest("", over=lease))
        except ApiError as error:
            log.info("cannot release the lease, it will expire: %s", error)

    @property
    def _name(self) -> str:
        return f"lease {self._ref.namespace}/{LEASE_NAME}"

    async def _attempt(self) -> bool:
        try:
            acquired = await self.try_acquire()
        except ApiError as error:
            log.warning("cannot acquire the lease: %s", error)
            # Not where it is unreachable or fails: that ends without a restart.
            is_rejection = 400 <= error.status < 500 and error.status not in _RETRIED
            self._rejected = f"cannot acquire {self._name}: {error}" if is_rejection else None
            return False
        self._rejected = None
        return acquired

    async def _renew(self) -> None:
        began = self._clock.monotonic()
        manifest = self._manifest(self._ref.holder)
        manifest["metadata"]["resourceVersion"] = self._version
        try:
            renewed = await self._cluster.apply(manifest)
        except Conflict:
            # An own renewal may have been accepted though its response was late or lost.
            lease = await self._read()
            if lease is None:
                raise
            self._check_history(lease)
            holder = lease.get("spec", {}).get("holderIdentity")
            if holder != self._ref.holder:
                raise LeadershipLostError(
                    f"another operator acquired the lease: {holder or 'it was released'}"
                ) from None
            began = self._clock.monotonic()
            renewed = await self._cluster.apply(self._manifest(self._ref.holder, over=lease))
        # Created again, where the backup had none.
        self._check_history(renewed)
        self._on_renewed(renewed, began)

    async def _read(self) -> Manifest | None:
        return await self._cluster.get(LEASES, self._ref.namespace, LEASE_NAME)

    def _check_history(self, lease: Manifest) -> None:
        version = lease["metadata"]["resourceVersion"]
        if int(version) < int(self._version):
            raise LeadershipLostError(
                f"the API server's data was restored from a backup: {self._name} has version "
                f"{version} after {self._version}, and everything must be listed again"
            )

    def _is_free(self, lease: Manifest) -> bool:
        now = self._clock.monotonic()
        version = lease["metadata"]["resourceVersion"]
        if version != self._version:
            self._version = version
            self._version_since = now
        holder = lease.get("spec", {}).get("holderIdentity")
        mine_or_none = not holder or holder == self._ref.holder
        return mine_or_none or now - self._version_since > LEASE_SECONDS

    def _on_renewed(self, lease: Manifest, began: float) -> None:
        self._version = lease["metadata"]["resourceVersion"]
        # Of the request, not of its response: another operator counts from when it was accepted.
        self._renewed_at = began

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
