"""Follows the LlamaGateway, which is the configuration, and the LlamaServers of its namespace."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from slotkeeper.gateway.config import BadSpec, GatewayConfig, parse_config
from slotkeeper.gateway.models import Model, by_name, is_selected, model_of
from slotkeeper.gateway.proxy import Gateway
from slotkeeper.kube.cluster import UNREADABLE, Cluster, Manifest
from slotkeeper.kube.kinds import LLAMA_GATEWAYS, LLAMA_SERVERS
from slotkeeper.kube.watch import list_and_watch

_log = logging.getLogger(__name__)

_COLLECT_SECONDS = 0.05
"""Changes within this time are applied together: the status of each busy server changes every
second."""


class ClusterFollower:
    """Keeps a gateway's configuration and models up to date.

    `on_config` is called with each new configuration, after the gateway has it.
    """

    def __init__(
        self,
        gateway: Gateway,
        on_config: Callable[[GatewayConfig], None] = lambda _: None,
    ) -> None:
        self._gateway = gateway
        gateway.status = self._status
        self._on_config = on_config
        self._servers: Mapping[str, Manifest] | None = None
        self._decoded: dict[str, tuple[str, Model | None]] = {}  # with the resource version
        self._spec_error = ""
        self._conflicts: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, cluster: Cluster, namespace: str, name: str) -> None:
        """Follow the LlamaGateway of this name. Never returns."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_gateway(cluster, namespace, name))
            tasks.create_task(self._follow_servers(cluster, namespace))

    def apply_gateway(self, found: Manifest | None) -> None:
        """Apply the LlamaGateway's spec. Without one, or if it is not valid, the last one stays."""
        error = ""
        if found is None:
            error = "the LlamaGateway does not exist"
        elif UNREADABLE in found:
            error = f"the LlamaGateway is unreadable: {found[UNREADABLE]}"
        else:
            try:
                config = parse_config(found.get("spec"))
            except BadSpec as bad:
                error = f"the spec of the LlamaGateway is not valid: {bad}"
            else:
                if config != self._gateway.config or not self._gateway.synced:
                    self._gateway.set_config(config)
                    self._on_config(config)
                    self._apply_servers()
            self._gateway.set_ready_pods(_ready_pods(found))
        if error and error != self._spec_error:
            _log.error("%s; keeping the last configuration", error)
        self._spec_error = error

    def apply_servers(self, servers: Mapping[str, Manifest]) -> None:
        """Apply the LlamaServers, by name; soon, if others have just been applied."""
        first = self._servers is None
        self._servers = servers
        if first:
            self._apply_servers()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_COLLECT_SECONDS, self._apply_servers)

    def _status(self, server: str) -> Mapping[str, Any] | None:
        found = (self._servers or {}).get(server, {}).get("status")
        return found if isinstance(found, dict) else None

    async def _follow_gateway(self, cluster: Cluster, namespace: str, name: str) -> None:
        async for objects in list_and_watch(cluster, LLAMA_GATEWAYS, namespace, name=name):
            self.apply_gateway(objects.get(name))

    async def _follow_servers(self, cluster: Cluster, namespace: str) -> None:
        async for objects in list_and_watch(cluster, LLAMA_SERVERS, namespace):
            self.apply_servers(objects)

    def _apply_servers(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._servers is None:
            return
        selector = self._gateway.config.selector
        before = self._decoded
        self._decoded = {}
        for name, server in self._servers.items():
            version = str(server["metadata"].get("resourceVersion"))
            last = before.get(name)
            decoded = last if last and last[0] == version else (version, model_of(server))
            self._decoded[name] = decoded
        selected = (
            model
            for name, (_, model) in self._decoded.items()
            if model and is_selected(self._servers[name], selector)
        )
        models, conflicts = by_name(selected)
        found = [
            f"LlamaServers {each.used} and {each.server} both serve model {each.name}; using the "
            f"older one, {each.used}"
            for each in conflicts
        ]
        for message in found:
            if message not in self._conflicts:
                _log.warning("%s", message)
        self._conflicts = found
        self._gateway.set_models(models)


def _ready_pods(gateway: Manifest) -> int | None:
    status = gateway.get("status")
    ready = status.get("readyReplicas") if isinstance(status, dict) else None
    # In Python a bool is an int too.
    return ready if type(ready) is int else None
