"""One server, from what is to what should be: observe, decide, plan, apply, say."""

import logging
from collections.abc import Container
from dataclasses import dataclass, replace

from slotkeeper.api.conditions import Finding
from slotkeeper.api.reasons import Reason
from slotkeeper.api.server import InvalidSpec, LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Manifest, NotFound
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.reconcile import findings, status
from slotkeeper.reconcile.apply import Applied, apply
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.demand import Demand, addresses
from slotkeeper.reconcile.events import Happening, event
from slotkeeper.reconcile.fights import Fights
from slotkeeper.reconcile.idlest import prefer_idlest
from slotkeeper.reconcile.metrics import Decided
from slotkeeper.reconcile.nodes import Nodes
from slotkeeper.reconcile.observe import Observed, observe
from slotkeeper.reconcile.obstacles import obstacle
from slotkeeper.reconcile.plan import Child, Plan, child, plan_changes
from slotkeeper.reconcile.pods import Trouble, is_unschedulable
from slotkeeper.reconcile.queue import Key, TryAgainError
from slotkeeper.reconcile.refusals import is_final, taken
from slotkeeper.reconcile.scale import BY_HAND, Scaling, Wanted, policy_of, wanted
from slotkeeper.reconcile.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A server and what there is for it."""

    raw: Manifest
    server: LlamaServer
    observed: Observed


@dataclass(frozen=True)
class Known:
    """What is remembered of a server between two looks: small, for there may be thousands."""

    server: LlamaServer
    current: int | None
    """How many replicas the Deployment is set to."""


class Reconciler:
    """Makes the cluster as its LlamaServers say, one call a server.

    It reads the store, which may lag behind the cluster. So each write is guarded: it changes or
    deletes only the very object that was seen, and creates only where there is nothing.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        demand: Demand,
        images: Images,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._demand = demand
        self._images = images
        self._clock = clock
        self._nodes = Nodes(cluster, clock.monotonic)
        self.fights = Fights(clock.monotonic)
        self._known: dict[Key, Known] = {}
        self._hidden: dict[Key, set[Child]] = {}
        """Children that stand there without the label by which watches show them."""

    @property
    def keys(self) -> list[Key]:
        """The valid servers that there are."""
        return list(self._known)

    def stirring(self, besides: Container[Key] = ()) -> list[Key]:
        """The servers that time has come for: those that stir, `besides` some that were looked at,
        and those with a child that is fought over and due."""
        decisions = [key for key in self._known if key not in besides and self.stirs(key)]
        return decisions + self.fights.stirring()

    def outdated(self) -> list[Key]:
        """The servers whose status shows other numbers than their balancers tell."""
        return [key for key, known in self._known.items() if self._is_outdated(key, known)]

    def stirs(self, key: Key) -> bool:
        """Whether there is another decision on a server's replicas, by its numbers or by time."""
        known = self._known.get(key)
        return known is not None and self._decides_anew(key, known)

    def decided(self, key: Key) -> Decided | None:
        """What was last decided on a server's replicas; None where nothing is known of it."""
        known = self._known.get(key)
        said = known.server.status.get("scaling") if known else None
        if not said:
            return None
        reading = self._demand.newest(key)
        demand = reading.sample.busy + reading.sample.waiting if reading else 0
        return Decided(said["wanted"], said["reason"], demand)

    async def reconcile(self, key: Key) -> None:
        """Bring one server to where it should be, or a step nearer.

        Raises ApiError and TryAgainError where it must be called again after a while. Else every
        further step is brought by an event.
        """
        seen = await self._look(key)
        if seen is None:
            return
        scaling, plan = self._decide(key, seen)
        plan = self.fights.held_back(key, plan)
        refused: Trouble | None = None
        error: Exception | None = None
        happened: list[Happening] = []
        if plan:
            had_its_own = "observedGeneration" in seen.server.status
            if had_its_own and plan.creates and not await self._is_there(seen.raw):
                # The store knows it now.
                await self.reconcile(key)
                return
            if scaling.change < 0 and not seen.server.spec.workers:
                pods, reading = seen.observed.replica_pods, await self._demand.now(key)
                await prefer_idlest(self._cluster, self._store, pods, reading)
            try:
                plan, applied = await self._carry_out(key, plan)
                happened = self.fights.undone(key, applied.put_right, applied.resisted)
                self._demand.changed(key, scaling.change)
            except ApiError as refusal:
                if not is_final(refusal):
                    raise
                refused, error = Trouble(Reason.CHILD_REFUSED, refusal.message), refusal
            seen = await self._look(key)
            if seen is None:
                return
        if not error and (refused := taken(plan, seen.server)):
            error = TryAgainError(refused.message)
        fought = self.fights.trouble(key)
        seen = replace(seen, observed=replace(seen.observed, refused=refused, fought=fought))
        await self._say(key, seen, scaling, happened)
        if error:
            raise error

    async def _carry_out(self, key: Key, plan: Plan) -> tuple[Plan, Applied]:
        """Apply the plan; what is left of it, should something have been hidden from it."""
        applied = await apply(plan, self._cluster, self._store)
        if not applied.hidden:
            return plan, applied
        self._hidden.setdefault(key, set()).update(applied.hidden)
        seen = await self._look(key)
        if seen is None:
            return Plan(), applied
        _, rest = self._decide(key, seen)
        return rest, applied + await apply(rest, self._cluster, self._store)

    async def _is_there(self, raw: Manifest) -> bool:
        """Whether the server that the store shows still is; if not, the store learns it.

        The garbage collector takes the children of one that went, while the watch that should tell
        of it may be broken: it would all be made again, and taken again.
        """
        metadata = raw["metadata"]
        found = await self._cluster.get(LLAMA_SERVERS, metadata["namespace"], metadata["name"])
        if found and found["metadata"]["uid"] == metadata["uid"]:
            return True
        self._store.deleted(raw)
        if found:
            self._store.put(found)
        return False

    async def _look(self, key: Key) -> Seen | None:
        """What there is; None where there is nothing to do: gone, going, or invalid."""
        raw = self._store.server(key)
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
        observed = observe(self._store, server, await self._find_hidden(key))
        pods = [*observed.worker_pods, *observed.replica_pods]
        if server.spec.gpu.compute_arch and any(map(is_unschedulable, pods)):
            arches = await self._nodes.compute_arches()
            observed = replace(observed, compute_arches=arches)
        self._known[key] = Known(server, observed.current)
        policy = policy_of(server, self._clock.wall())
        self._demand.watch(key, addresses(observed.balancer_pods), policy)
        return Seen(raw, server, observed)

    async def _find_hidden(self, key: Key) -> dict[Child, Manifest]:
        found = {}
        for kind, name in self._hidden.pop(key, ()):
            item = await self._cluster.get(kind, key.namespace, name)
            if item is None:
                continue
            if (item["metadata"].get("labels") or {}).get(names.SERVER_LABEL) == key.name:
                self._store.put(item)
            else:
                found[kind, name] = item
        if found:
            self._hidden[key] = set(found)
        return found

    def _forget(self, key: Key) -> None:
        self._known.pop(key, None)
        self._hidden.pop(key, None)
        self._demand.forget(key)
        self._store.forget(key)
        self.fights.forget(key)

    def _wanted(self, key: Key, server: LlamaServer, current: int | None) -> Wanted:
        now, today = self._clock.monotonic(), self._clock.wall()
        return wanted(server, current, self._demand.known(key), now=now, today=today)

    def _decide(self, key: Key, seen: Seen) -> tuple[Scaling, Plan]:
        decision = self._wanted(key, seen.server, seen.observed.current)
        scaling = Scaling(decision, seen.observed.current, self._demand.is_settling(key))
        blocked = obstacle(seen.server, seen.observed)
        desired = manifests(seen.server, decision.replicas, self._images, blocked)
        lost = self._store.lost(key, seen.server.uid)
        plan = plan_changes(desired, seen.observed.children, seen.server.uid, lost)
        replicas = seen.observed.replicas
        if replicas and ("spec", "replicas") in plan.drifted.get(child(replicas), ()):
            # The decision stands as it was: what somebody else set is no scaling.
            scaling = replace(scaling, before=decision.replicas)
        return scaling, plan

    async def _say(self, key: Key, seen: Seen, scaling: Scaling, happened: list[Happening]) -> None:
        found: list[Finding] = findings.findings(seen.server, seen.observed, scaling)
        said = status.status(
            seen.server,
            seen.observed,
            found,
            scaling,
            self._demand.newest(key),
            now=self._clock.wall(),
        )
        happened = [*happened, *status.happenings(seen.server.status, found, scaling)]
        raw = await self._write(seen.raw, said, happened)
        self._known[key] = Known(LlamaServer.parse(raw), seen.observed.current)

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
        try:
            written = await self._cluster.patch_status({**raw, "status": said})
        except NotFound:
            self._store.deleted(raw)
            return raw
        self._store.put(written)
        return written

    def _is_outdated(self, key: Key, known: Known) -> bool:
        reading, shown = self._demand.newest(key), known.server.status
        if not reading:
            return False
        numbers = {"total": reading.sample.total, "busy": reading.sample.busy}
        return numbers != shown.get("slots") or reading.sample.waiting != shown.get("waiting")

    def _decides_anew(self, key: Key, known: Known) -> bool:
        shown = known.server.status
        decision = self._wanted(key, known.server, known.current)
        if decision.reason in BY_HAND or self._demand.is_settling(key):
            return False
        # The sentence holds the age of the oldest request: new each second, and no news.
        return decision.replicas != known.current or decision.reason != shown.get(
            "scaling", {}
        ).get("reason")
