"""Requests and limits of the containers. Each has some of CPU and memory, unless the spec says
otherwise: a ResourceQuota requires them of each container, including init containers."""

import math
from collections.abc import Mapping

from slotkeeper.api.gpu import Gpu
from slotkeeper.api.resources import Resources
from slotkeeper.desired.metadata import MIB, Manifest

CPU_REQUEST = "100m"
MEMORY_REQUEST = "128Mi"
"""Defaults of balancers, gateways and init containers: the minimum of many LimitRanges."""
CPU_LIMIT = "1"
"""More is of no use to them: each computes in one thread."""

SMALL_LIMIT_MIB = 256
"""Memory limit of programs that only read, write or remove files."""

Amounts = Mapping[str, int | str]

_INIT_REQUESTS: Amounts = {"cpu": CPU_REQUEST, "memory": MEMORY_REQUEST}
_INIT_LIMITS: Amounts = {"cpu": CPU_LIMIT, "memory": f"{SMALL_LIMIT_MIB}Mi"}


def specified(spec: Resources) -> Manifest:
    """Return the resources of a container as they are specified."""
    return _tree(spec.requests, spec.limits)


def of_proxy(spec: Resources | None, memory_limit: int) -> Manifest:
    """Return the resources of a balancer or gateway; `memory_limit`, in bytes, is the default."""
    if spec is not None:
        return specified(spec)
    return {
        "requests": {"cpu": CPU_REQUEST, "memory": MEMORY_REQUEST},
        "limits": {"cpu": CPU_LIMIT, "memory": f"{math.ceil(memory_limit / MIB)}Mi"},
    }


def with_gpus(spec: Resources, gpu: Gpu) -> Manifest:
    """Return the resources of a container that computes, including its GPUs."""
    if gpu.resource_claims:
        claims = [
            claim.model_dump(by_alias=True, include={"name", "request"}, exclude_none=True)
            for claim in gpu.resource_claims
        ]
        return {**_tree(spec.requests, spec.limits), "claims": claims}
    gpus = {gpu.resource_name: gpu.count} if gpu.count else {}
    return _tree({**spec.requests, **gpus}, {**spec.limits, **gpus})


def pod_claims(gpu: Gpu) -> Manifest:
    """Return the pod's field resourceClaims; empty without any."""
    claims = [
        claim.model_dump(by_alias=True, exclude={"request"}, exclude_none=True)
        for claim in gpu.resource_claims or ()
    ]
    return {"resourceClaims": claims} if claims else {}


def of_init_container(main: Resources) -> Manifest:
    """Return the resources of an init container beside a container with the resources `main`.

    For CPU, memory and ephemeral storage those of `main`: the init container is then accepted where
    `main` is, and costs nothing, since a pod counts as the larger of the two. Where `main` sets
    neither request nor limit: enough for a download, which shares the node with other pods.
    """
    kept = [
        name
        for name in ("cpu", "memory", "ephemeral-storage")
        if name in main.requests or name in main.limits
    ]

    def combined(of_main: Amounts, default: Amounts) -> Amounts:
        found = {name: of_main[name] for name in kept if name in of_main}
        return found | {name: each for name, each in default.items() if name not in kept}

    return _tree(combined(main.requests, _INIT_REQUESTS), combined(main.limits, _INIT_LIMITS))


def of_sidecar(memory_limit_mib: int) -> Manifest:
    """Return the resources of a container that runs beside the main one, in addition to it."""
    return {
        "requests": {"cpu": CPU_REQUEST, "memory": MEMORY_REQUEST},
        "limits": {"cpu": CPU_LIMIT, "memory": f"{memory_limit_mib}Mi"},
    }


def _tree(requests: Amounts, limits: Amounts) -> Manifest:
    # As strings, which is how the API server returns them.
    return {
        kind: {name: str(amount) for name, amount in amounts.items()}
        for kind, amounts in (("requests", requests), ("limits", limits))
        if amounts
    }
