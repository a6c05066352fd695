"""What a balancer follows in the cluster: replicas, other balancers, rules, the Lease."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

from slotkeeper.api import primed_prompts
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import (
    ACCESS_RULES_ANNOTATION,
    PRIME_ANNOTATION,
    START_BLOCKER_ANNOTATION,
)
from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.admin.server import Admin
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.election.peer_auth import PeerAuth
from slotkeeper.balancer.election.peers import PeerDirectory
from slotkeeper.balancer.options import Options
from slotkeeper.balancer.priming.priming import Priming
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.upstream.endpoints import replicas_in, service_labels, terminating_in
from slotkeeper.kube.cluster import Cluster, Manifest
from slotkeeper.kube.kinds import ENDPOINT_SLICES, ROLES
from slotkeeper.kube.watch import list_and_watch

_log = logging.getLogger(__name__)


class ViewAge:
    """The age of what is known of the cluster: of the watch that was confirmed the longest ago."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._confirmed: dict[str, float] = {}

    def track(self, name: str) -> Callable[[], None]:
        """Return what to call whenever the API server confirms what the watch `name` has."""
        self._confirmed[name] = self._now()

        def confirm() -> None:
            self._confirmed[name] = self._now()

        return confirm

    def seconds(self) -> float:
        """Return the age in seconds; 0 without a watch."""
        now = self._now()
        return max((now - at for at in self._confirmed.values()), default=0.0)


class ClusterFollower:
    """Keeps a balancer up to date. The balancer is ready once everything was read once."""

    def __init__(
        self,
        cluster: Cluster,
        options: Options,
        proxy: Proxy,
        admin: Admin,
        access: RequestAccess,
        wall: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._proxy = proxy
        self._admin = admin
        self._access = access
        self._age = ViewAge(proxy.now)
        self._peers: PeerDirectory | None = None
        self._read = {name: asyncio.Event() for name in ("replicas", "peers", "role")}
        """Whether each was read once, or is not followed."""
        proxy.view_age = self._age.seconds
        if options.lease and options.peers:
            self._peers = PeerDirectory(options.identity, self._fetch_peers)
            access.peers = PeerAuth(self._peers, os.urandom(32))
            admin.election = LeaderElection(cluster, options.lease, access.peers, proxy, wall)

    async def run(self) -> None:
        """Follow everything. Never ends."""
        options = self._options
        async with asyncio.TaskGroup() as tasks:
            if options.endpoints:
                tasks.create_task(self._follow_replicas(options.endpoints))
            if self._peers and options.peers:
                tasks.create_task(self._follow_peers(self._peers, options.peers))
            else:
                self._read["peers"].set()
            if options.role:
                tasks.create_task(self._follow_role(*options.role))
            else:
                self._read["role"].set()
            for read in self._read.values():
                await read.wait()
            self._admin.ready = True
            if self._admin.election:
                tasks.create_task(self._admin.election.run())

    async def _follow_replicas(self, service: tuple[str, str]) -> None:
        async for slices in self._slices(service, "replicas"):
            found = slices.values()
            self._proxy.set_replicas(replicas_in(found), terminating_in(found))
            self._read["replicas"].set()

    async def _follow_peers(self, peers: PeerDirectory, service: tuple[str, str]) -> None:
        async for slices in self._slices(service, "peers"):
            peers.update(slices.values())
            self._read["peers"].set()

    async def _follow_role(self, namespace: str, name: str) -> None:
        confirm = self._age.track("role")
        watch = list_and_watch(self._cluster, ROLES, namespace, name=name, on_contact=confirm)
        async for roles in watch:
            if role := roles.get(name):
                self._apply(role["metadata"].get("annotations") or {})
            else:
                _log.warning("role %s/%s not found; keeping the access rules", namespace, name)

    def _apply(self, annotations: Mapping[str, str]) -> None:
        blocker = annotations.get(START_BLOCKER_ANNOTATION)
        self._proxy.set_blocked(StartBlocker.from_annotation(blocker))
        if self._proxy.priming:
            self._set_primed(self._proxy.priming, annotations.get(PRIME_ANNOTATION))
        before = self._access.outdated
        try:
            rules = AccessRules.from_annotation(annotations.get(ACCESS_RULES_ANNOTATION, ""))
        except ValueError as error:
            _log.warning("cannot read the access rules in force; keeping the last ones: %s", error)
            return
        self._access.apply(rules)
        self._read["role"].set()
        if self._access.outdated and not before:
            _log.warning("rejecting requests: API keys of another Secret are required now")
        if self._admin.election:
            self._admin.election.set_retired(self._access.outdated)

    @staticmethod
    def _set_primed(priming: Priming, annotation: str | None) -> None:
        try:
            priming.set_inline(primed_prompts.from_annotation(annotation))
        except ValueError:
            # Without the error, which may contain a part of a prompt.
            _log.warning("cannot read the prompts of the spec; keeping the last ones")

    def _slices(self, service: tuple[str, str], name: str) -> AsyncIterator[dict[str, Manifest]]:
        namespace, of = service
        confirm = self._age.track(name)
        labels = service_labels(of)
        return list_and_watch(self._cluster, ENDPOINT_SLICES, namespace, labels, on_contact=confirm)

    async def _fetch_peers(self) -> list[Manifest]:
        if not self._options.peers:
            return []
        namespace, service = self._options.peers
        labels = service_labels(service)
        return (await self._cluster.list(ENDPOINT_SLICES, namespace, labels)).items
