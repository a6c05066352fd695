"""Scheduling of pods: of replicas, with what spec.gpu requires, of balancers and of gateways."""

from math import ceil
from typing import Any

from slotkeeper.api import quantity
from slotkeeper.api.gateway import GatewayPlacement, LlamaGateway
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.placement import BalancerPlacement, Placement, TopologySpreadConstraint
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.metadata import Manifest
from slotkeeper.desired.model_container import has_claims
from slotkeeper.desired.names import Component

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def placement(server: LlamaServer) -> Manifest:
    """Return the scheduling fields of a replica's pod, without empty ones."""
    spec = server.spec.placement
    fields = {
        **_common(spec),
        "affinity": _affinity(server),
        "topologySpreadConstraints": [
            _spread(server, constraint) for constraint in spec.topology_spread_constraints
        ],
        "runtimeClassName": spec.runtime_class_name,
        "schedulerName": spec.scheduler_name,
    }
    return {name: value for name, value in fields.items() if value}


def prefetch_placement(server: LlamaServer) -> Manifest:
    """Return the scheduling fields of a pod that only downloads, without empty ones.

    It goes where replicas may go: else a volume that is provisioned for it, in its zone, may be out
    of their reach. And a model in the cache of a node is of use to replicas on that node only: so
    it needs a GPU there, as they do, though it requests none.
    """
    spec = server.spec.placement
    affinity = _affinity(server)
    if server.spec.model.cache.node and not _selects_nodes(spec, affinity):
        requirements = _any_gpu(server.spec.gpu)
        if requirements:
            affinity["nodeAffinity"] = _require([requirements], affinity.get("nodeAffinity") or {})
    fields = {**_common(spec), "affinity": affinity, "schedulerName": spec.scheduler_name}
    if server.spec.gpu.count and not server.spec.gpu.resource_claims:
        # As Kubernetes adds it to pods that request GPUs (ExtendedResourceToleration).
        gpus = {"key": server.spec.gpu.resource_name, "operator": "Exists", "effect": "NoSchedule"}
        fields["tolerations"] = [*fields["tolerations"], gpus]
    return {name: value for name, value in fields.items() if value}


def inspection_placement(server: LlamaServer) -> Manifest:
    """Return the scheduling fields of a pod that only reads the headers of the model's files,
    without empty ones.

    It may run where balancers may: where it had to be on a node with a GPU, a cluster autoscaler
    would add one for it. But a volume with a file may be out of reach elsewhere.
    """
    if has_claims(server.spec):
        return {**prefetch_placement(server), "affinity": _near_replicas(server)}
    fields = {
        **_common(server.spec.placement),
        "nodeSelector": dict(server.spec.balancer.placement.node_selector),
    }
    return {name: value for name, value in fields.items() if value}


def balancer_placement(server: LlamaServer) -> Manifest:
    """Return the scheduling fields of a balancer's pod, without empty ones."""
    fields = _common(server.spec.balancer.placement)
    return {name: value for name, value in fields.items() if value}


def gateway_placement(gateway: LlamaGateway) -> Manifest:
    """Return the scheduling fields of a gateway's pod, without empty ones."""
    fields = _common(gateway.spec.placement)
    return {name: value for name, value in fields.items() if value}


def _common(spec: Placement | BalancerPlacement | GatewayPlacement) -> Manifest:
    return {
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [
            toleration.model_dump(by_alias=True, exclude_none=True)
            for toleration in spec.tolerations
        ],
        "priorityClassName": spec.priority_class_name,
    }


def _affinity(server: LlamaServer) -> Manifest:
    affinity: Manifest = server.spec.placement.affinity.model_dump(by_alias=True, exclude_none=True)
    alternatives = _node_requirements(server)
    if any(alternatives):
        affinity["nodeAffinity"] = _require(alternatives, affinity.get("nodeAffinity") or {})
    return affinity


def _near_replicas(server: LlamaServer) -> Manifest:
    """Return an affinity to nodes that replicas may use, and if possible to one that has a replica:
    a volume may be attached to one node only. Affinities to other pods are those of replicas."""
    node = _affinity(server).get("nodeAffinity")
    replicas = {
        "labelSelector": {"matchLabels": names.match_labels(server, Component.REPLICA)},
        "topologyKey": "kubernetes.io/hostname",
    }
    preferred = [{"weight": 100, "podAffinityTerm": replicas}]
    return {
        **({"nodeAffinity": node} if node else {}),
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred},
    }


def _require(alternatives: list[list[Manifest]], affinity: dict[str, Any]) -> Manifest:
    """Add one of several lists of match expressions to a node affinity. As in a pod, null is like a
    missing field."""
    required = affinity.get(_REQUIRED) or {}
    try:
        # A node has to match all expressions of any one term: so each term needs them.
        extended = [
            {**term, "matchExpressions": [*(term.get("matchExpressions") or []), *requirements]}
            for term in required.get("nodeSelectorTerms") or [{}]
            for requirements in alternatives
        ]
    except (AttributeError, TypeError):
        # It is no node affinity, which the API server reports when it rejects the pod.
        return affinity
    return {**affinity, _REQUIRED: {"nodeSelectorTerms": extended}}


def _node_requirements(server: LlamaServer) -> list[list[Manifest]]:
    """Return the match expressions for the labels of GPU feature discovery, one list for each major
    version of the compute capabilities that fit."""
    minors: dict[str, list[str]] = {}
    for arch in server.compute_arches:
        major, _, minor = arch.partition(".")
        minors.setdefault(major, []).append(minor)
    memory = _memory_requirements(server.spec.gpu)
    return [
        [
            {"key": names.GPU_MAJOR_LABEL, "operator": "In", "values": [major]},
            {"key": names.GPU_MINOR_LABEL, "operator": "In", "values": values},
            *memory,
        ]
        for major, values in minors.items()
    ] or [memory]


def _memory_requirements(gpu: Gpu) -> list[Manifest]:
    if gpu.min_memory is None:
        return []
    mib = ceil(quantity.parse(gpu.min_memory) / 1024**2)
    key = names.gpu_memory_label(gpu.resource_name)
    # There is no operator "greater than or equal".
    return [{"key": key, "operator": "Gt", "values": [str(mib - 1)]}]


def _selects_nodes(spec: Placement, affinity: Manifest) -> bool:
    """Whether pods are limited to some nodes, by other means than what they request."""
    return bool(spec.node_selector or (affinity.get("nodeAffinity") or {}).get(_REQUIRED))


def _any_gpu(gpu: Gpu) -> list[Manifest]:
    """Return a match expression for nodes with NVIDIA's GPUs. Others have no common label."""
    if gpu.count == 0 or gpu.resource_claims or not gpu.resource_name.startswith(names.NVIDIA):
        return []
    return [{"key": names.gpu_memory_label(gpu.resource_name), "operator": "Exists"}]


def _spread(server: LlamaServer, constraint: TopologySpreadConstraint) -> Manifest:
    return {
        **constraint.model_dump(by_alias=True, exclude_none=True),
        "labelSelector": {"matchLabels": names.match_labels(server, Component.REPLICA)},
        # Without the replicas of an older spec, which terminate soon: counting them would place the
        # new ones unevenly.
        "matchLabelKeys": ["pod-template-hash"],
    }
