"""The nodes that a server's replicas run on: what the user says, and what its GPUs need."""

from math import ceil
from typing import Any

from slotkeeper.api import quantity
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.placement import TopologySpread
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.metadata import Manifest
from slotkeeper.desired.names import Component

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def placement(server: LlamaServer) -> Manifest:
    """The fields of a replica's pod that say where it runs; none that says nothing."""
    said = server.spec.placement
    fields = {
        "nodeSelector": dict(said.node_selector),
        "tolerations": [
            toleration.model_dump(by_alias=True, exclude_none=True)
            for toleration in said.tolerations
        ],
        "affinity": _affinity(server),
        "topologySpreadConstraints": [
            _spread(server, spread) for spread in said.topology_spread_constraints
        ],
        "priorityClassName": said.priority_class_name,
        "runtimeClassName": said.runtime_class_name,
        "schedulerName": said.scheduler_name,
    }
    return {name: value for name, value in fields.items() if value}


def _affinity(server: LlamaServer) -> Manifest:
    affinity: Manifest = server.spec.placement.affinity.model_dump(by_alias=True, exclude_none=True)
    if demands := _of_nodes(server.spec.gpu):
        affinity["nodeAffinity"] = _with(demands, affinity.get("nodeAffinity", {}))
    return affinity


def _with(demands: list[Manifest], affinity: dict[str, Any]) -> Manifest:
    """A node affinity that also demands this."""
    # A node has to meet one term, and of that each expression: so each term has to demand it.
    terms = affinity.get(_REQUIRED, {}).get("nodeSelectorTerms") or [{}]
    demanding = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), *demands]}
        for term in terms
    ]
    return {**affinity, _REQUIRED: {"nodeSelectorTerms": demanding}}


def _of_nodes(gpu: Gpu) -> list[Manifest]:
    """What the labels that GPU feature discovery writes must say of a replica's node."""
    demands: list[Manifest] = []
    if gpu.compute_arch:
        major, _, minor = gpu.compute_arch.partition(".")
        demands += [
            {"key": names.GPU_MAJOR_LABEL, "operator": "In", "values": [major]},
            {"key": names.GPU_MINOR_LABEL, "operator": "In", "values": [minor]},
        ]
    if gpu.min_memory is not None:
        mib = ceil(quantity.parse(gpu.min_memory) / 1024**2)
        key = names.gpu_memory_label(gpu.resource_name)
        # There is no operator for "at least".
        demands.append({"key": key, "operator": "Gt", "values": [str(mib - 1)]})
    return demands


def _spread(server: LlamaServer, spread: TopologySpread) -> Manifest:
    return {
        **spread.model_dump(by_alias=True, exclude_none=True),
        "labelSelector": {"matchLabels": names.identity(server, Component.REPLICA)},
        # Those of an older spec are about to go: they must not push the new ones together.
        "matchLabelKeys": ["pod-template-hash"],
    }
