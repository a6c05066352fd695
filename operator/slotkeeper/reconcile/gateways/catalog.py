"""What gateways read of each LlamaServer: a small record, so that a pass reads no specs."""

from collections import defaultdict
from dataclasses import dataclass

from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.budgets import Budgets
from slotkeeper.reconcile.gateways.models import ServedModel, served_model
from slotkeeper.reconcile.watch.store import Store


class ModelCatalog:
    """The models of all LlamaServers, as the store of the servers shows them."""

    def __init__(self, servers: Store) -> None:
        self._servers = servers
        self._models: dict[str, dict[Key, ServedModel]] = defaultdict(dict)
        """By namespace."""

    def refresh(self, server: Key) -> list[ServedModel]:
        """Read a server anew. Returns its model before and after, as far as there was and is one;
        empty where nothing changed that gateways read.

        A busy server's status changes every second, its model's state seldom.
        """
        raw = self._servers.resource(server)
        model = served_model(raw) if raw else None
        models = self._models[server.namespace]
        before = models.get(server)
        if model is not None:
            models[server] = model
        else:
            models.pop(server, None)
            if not models:
                del self._models[server.namespace]
        return [] if model == before else [each for each in (before, model) if each]

    def models_in(self, namespace: str) -> list[ServedModel]:
        """The models of a namespace."""
        return list(self._models.get(namespace, {}).values())


@dataclass(frozen=True)
class Servers:
    """The LlamaServers, as gateways see them: their models, and what limits their replicas."""

    catalog: ModelCatalog
    budgets: Budgets
