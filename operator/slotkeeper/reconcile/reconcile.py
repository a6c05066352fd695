"""One server, from what is to what should be: observe, decide, plan, apply, say."""

import logging
from dataclasses import dataclass, replace

from slotkeeper.api.conditions import Finding
from slotkeeper.api.server import KIND, InvalidSpec, LlamaServer
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Manifest
from slotkeeper.reconcile import findings, status
from slotkeeper.reconcile.apply import apply
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.demand import Demand, addresses
from slotkeeper.reconcile.events import Happening, event
from slotkeeper.reconcile.observe import Observed, observe, read_server
from slotkeeper.reconcile.plan import Plan, plan_changes
from slotkeeper.reconcile.pods import Trouble
from slotkeeper.reconcile.queue import Key, TryAgainError
from slotkeeper.reconcile.scale import BY_HAND, Wanted, policy_of, wanted
from slotkeeper.reconcile.status import Scaling

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A server and what there is for it."""

    raw: Manifest
    server: LlamaServer
    observed: Observed


class Reconciler:
    """Makes the cluster as its LlamaServers say, one call a server.

    It remembers what it last saw of each server, since `changed` is called for every change in the
    cluster: what only the balancers' numbers woke costs no read. Before it writes a child it
    always looks again.
    """

    def __init__(self, cluster: Cluster, demand: Demand, images: Images, clock: Clock) -> None:
        self._cluster = cluster
        self._demand = demand
        self._images = images
        self._clock = clock
        self._seen: dict[Key, Seen] = {}
        self._changed: set[Key] = set()

    @property
    def keys(self) -> list[Key]:
        """The valid servers that there are."""
        return list(self._seen)

    def changed(self, key: Key) -> None:
        """Look at the cluster again before anything is said or done about this server."""
        self._changed.add(key)

    def wrote(self, key: Key, resource_version: str) -> bool:
        """Whether this version of the server is only what was last written here."""
        seen = self._seen.get(key)
        return bool(seen and seen.raw["metadata"]["resourceVersion"] == resource_version)

    def stirring(self) -> list[Key]:
        """The servers about which the balancers' numbers say something new."""
        return [key for key, seen in self._seen.items() if self._stirs(key, seen)]

    def wanted(self, key: Key) -> int | None:
        """How many replicas a server was last found to need; None where nothing is known of it."""
        seen = self._seen.get(key)
        return None if seen is None else seen.server.status.get("scaling", {}).get("wanted")

    async def reconcile(self, key: Key) -> None:
        """Bring one server to where it should be, or a step nearer.

        Raises ApiError and TryAgainError where it must be called again after a while. Else every
        further step is brought by an event.
        """
        seen = None if key in self._changed else self._seen.get(key)
        if seen is None or self._decide(key, seen)[1]:
            self._changed.discard(key)
            seen = await self._look(key)
        if seen is None:
            return
        scaling, plan = self._decide(key, seen)
        refused = _taken(plan, seen.server)
        error: Exception | None = TryAgainError(refused.message) if refused else None
        if plan:
            try:
                await apply(plan, self._cluster)
            except ApiError as refusal:
                if not _is_final(refusal):
                    raise
                refused, error = Trouble("ChildRefused", refusal.message), refusal
            else:
                if scaling.scaled:
                    self._demand.changed(key, scaling.change)
            seen = await self._look(key)
            if seen is None:
                return
        await self._say(key, seen, scaling, refused)
        if error:
            raise error

    async def _look(self, key: Key) -> Seen | None:
        """What there is; None where there is nothing to do: gone, going, or invalid."""
        raw = await read_server(self._cluster, key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            # The garbage collector takes the children: they are owned.
            self._forget(key)
            return None
        try:
            server = LlamaServer.parse(raw)
        except InvalidSpec as error:
            self._forget(key)
            found = findings.invalid(str(error))
            said = status.invalid(raw, found, now=self._clock.wall())
            await self._write(raw, said, status.happenings(raw.get("status") or {}, found, None))
            return None
        expected = manifests(server, 0, self._images)
        seen = Seen(raw, server, await observe(self._cluster, server, expected))
        self._seen[key] = seen
        self._demand.watch(key, addresses(seen.observed.balancer_pods), policy_of(server))
        return seen

    def _forget(self, key: Key) -> None:
        self._seen.pop(key, None)
        self._changed.discard(key)
        self._demand.forget(key)

    def _wanted(self, key: Key, seen: Seen) -> Wanted:
        known, now = self._demand.known(key), self._clock.monotonic()
        return wanted(seen.server, seen.observed.current, known, now=now)

    def _decide(self, key: Key, seen: Seen) -> tuple[Scaling, Plan]:
        decision = self._wanted(key, seen)
        scaling = Scaling(decision, seen.observed.current, self._demand.is_settling(key))
        desired = manifests(seen.server, decision.replicas, self._images)
        return scaling, plan_changes(desired, seen.observed.children, seen.server.uid)

    async def _say(self, key: Key, seen: Seen, scaling: Scaling, refused: Trouble | None) -> None:
        found: list[Finding] = findings.findings(seen.server, seen.observed, refused)
        said = status.status(
            seen.server,
            seen.observed,
            found,
            scaling,
            self._demand.newest(key),
            now=self._clock.wall(),
        )
        happened = status.happenings(seen.server.status, found, scaling)
        raw = await self._write(seen.raw, said, happened)
        self._seen[key] = replace(seen, raw=raw, server=LlamaServer.parse(raw))

    async def _write(
        self, raw: Manifest, said: status.Status, happened: list[Happening]
    ) -> Manifest:
        for happening in happened:
            log.info(
                "server %s/%s: %s: %s",
                raw["metadata"]["namespace"],
                raw["metadata"]["name"],
                happening.reason,
                happening.message,
            )
            try:
                await self._cluster.create(event(happening, raw, self._clock.wall()))
            except Conflict:
                log.debug("this event has been written already")
            except ApiError as error:
                # Worth less than the status that follows.
                log.warning("no event %s: %s", happening.reason, error)
        if said == raw.get("status"):
            return raw
        return await self._cluster.patch_status({**raw, "status": said})

    def _stirs(self, key: Key, seen: Seen) -> bool:
        shown = seen.server.status
        if reading := self._demand.newest(key):
            numbers = {"total": reading.total, "busy": reading.sample.busy}
            if numbers != shown.get("slots") or reading.sample.waiting != shown.get("waiting"):
                return True
        decision = self._wanted(key, seen)
        if decision.reason in BY_HAND or self._demand.is_settling(key):
            return False
        # The sentence holds the age of the oldest request: new each second, and no news.
        return decision.replicas != seen.observed.current or decision.reason != shown.get(
            "scaling", {}
        ).get("reason")


def _taken(plan: Plan, server: LlamaServer) -> Trouble | None:
    for item in plan.taken:
        child = f"{item['kind']} {item['metadata']['name']}"
        owners = item["metadata"].get("ownerReferences") or []
        if any(owner["kind"] == KIND and owner["name"] == server.name for owner in owners):
            return Trouble("Replacing", f"{child} of the deleted server of this name still goes")
        return Trouble("NameTaken", f"{child} is there already and does not belong to this server")
    return None


def _is_final(error: ApiError) -> bool:
    """Whether the API server refused what was asked, rather than just not now."""
    return 400 <= error.status < 500 and error.status not in {404, 408, 409, 410, 429}
