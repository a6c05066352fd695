"""The steps of a pass that do not depend on the kind of resource: children, writes, report."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from slotkeeper.api.resource import Resource
from slotkeeper.kube.cluster import UNREADABLE, Cluster, Manifest
from slotkeeper.kube.objects import Child, Key, child, owned
from slotkeeper.reconcile.observe.name_conflict import foreign, name_conflict
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.events import adopted, drift_corrected
from slotkeeper.reconcile.report.report import Report
from slotkeeper.reconcile.report.writer import StatusWriter
from slotkeeper.reconcile.state import ResourceState
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import RetryError
from slotkeeper.reconcile.write.apply import Result
from slotkeeper.reconcile.write.plan import Plan


class PassSteps:
    """What passes over servers and over gateways share. `store` is that of the kind."""

    def __init__(self, cluster: Cluster, store: Store, writer: StatusWriter) -> None:
        self._cluster = cluster
        self._store = store
        self._writer = writer
        self.on_corrected: Callable[[str], None] = lambda _: None
        """Called with the kind of each child whose drift was corrected."""
        self.on_conditions: Callable[[Key, Sequence[Manifest]], None] = lambda *_: None
        """Called with a resource's conditions when they are reported; without any, it is
        deleted."""

    def resource(self, key: Key) -> Manifest | None:
        """The resource as the watch shows it; None if it is deleted or being deleted."""
        raw = self._store.resource(key)
        return None if raw is None or "deletionTimestamp" in raw["metadata"] else raw

    async def unlabelled(self, key: Key, state: ResourceState | None) -> dict[Child, Manifest]:
        """The children that no watch shows, read from the API server.

        Raises RetryError for a child that the operator has deleted and that still exists.
        """
        found = {}
        for kind, name in state.unlabelled if state else ():
            item = await self._cluster.get(kind, key.namespace, name)
            if item is None:
                continue
            if (item["metadata"].get("labels") or {}).get(self._store.label) == key.name:
                self._store.put(item)
                if (kind, name) not in self._store.children(key):
                    raise RetryError(f"{kind.kind} {name} is still terminating")
            else:
                found[kind, name] = item
        return found

    def check_readable(self, children: Mapping[Child, Manifest], owner: Resource) -> None:
        """Raise RetryError if a child of the owner cannot be read."""
        for (kind, name), item in children.items():
            if UNREADABLE in item and owned(item, owner.uid):
                raise RetryError(f"{kind.kind} {name} cannot be read: {item[UNREADABLE]}")

    def name_conflict(
        self,
        owner: Resource,
        children: Mapping[Child, Manifest],
        desired: Callable[[], Iterable[Manifest]],
    ) -> Problem | None:
        """The first desired child whose name another object has; None without one."""
        if not foreign(children, owner):
            return None
        return name_conflict(owner, children, map(child, desired()))

    async def may_write(self, plan: Plan, raw: Manifest, *, is_reported: bool) -> bool:
        """Whether the resource is as the store shows it, where the plan depends on its existence.

        If not, the store is brought up to date. The garbage collector deletes the children of a
        resource that is deleted or being deleted, while the watch that would show it may be broken:
        all of them would be created, and deleted again. So would children that it was to leave as
        orphans, if they were adopted. A new resource, without a status, is what a watch has shown.
        """
        if not ((plan.creates and is_reported) or plan.adopts):
            return True
        metadata = raw["metadata"]
        found = await self._cluster.get(self._store.kind, metadata["namespace"], metadata["name"])
        if found and found["metadata"]["uid"] == metadata["uid"]:
            return not self._store.put(found)
        self._store.confirm_deleted(raw)
        if found:
            self._store.put(found)
        return False

    def record_writes(self, state: ResourceState, result: Result, now: float) -> None:
        """Remember what was written, also where the plan failed later."""
        announced = state.conflicts.record(result.corrected, result.changed_on_write, now)
        state.events += map(drift_corrected, announced)
        if result.adopted:
            state.events.append(adopted(result.adopted))
        for drift in result.corrected:
            self.on_corrected(drift.child[0].kind)
        state.unlabelled |= result.unlabelled

    async def write_report(
        self, key: Key, raw: Manifest, state: ResourceState, report: Report
    ) -> Manifest | None:
        """Create the events and write the status of a valid resource.

        Returns the resource as it is then; None where it is deleted. No watch event follows then,
        since the store has dropped the resource already.
        """
        status, events = report
        failed = await self._writer.create_events(raw, events)
        # An event is created once, also where the status has to be written again.
        state.events = [event for event in state.events if event in failed]
        written = await self._writer.write_status(raw, status)
        if written is not None:
            self.on_conditions(key, status["conditions"])
            state.events.clear()
        return written

    async def write_invalid(self, key: Key, raw: Manifest, report: Report) -> None:
        """Create the events and write the status of a resource whose spec is not valid."""
        await self._writer.create_events(raw, report.events)
        if await self._writer.write_status(raw, report.status):
            self.on_conditions(key, report.status["conditions"])
